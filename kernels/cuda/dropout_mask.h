// dropout_keep() of kernels/dropout.h on the device, bit for bit, in integers alone. For .cu files only.
#pragma once

#include <cmath>

#include "kernels/cuda/gpu.h"

namespace lomu::cuda {

/// Which elements of a matrix dropout keeps, and what it multiplies them by.
struct DropoutMask {
  std::uint64_t key;
  std::uint64_t first_row;  ///< of the matrix, within the batch of all ranks
  std::uint64_t threshold;  ///< keep where the 53 random bits are at least this
  float factor;             ///< 1 / (1 - p)

  /// p in [0, 1). The host compares bits * 2^-53 with p in double, which is exact: p 2^53 is a double, and so is its
  /// ceiling.
  DropoutMask(std::uint64_t k, std::int64_t row, float p)
      : key(k),
        first_row(static_cast<std::uint64_t>(row)),
        threshold(static_cast<std::uint64_t>(std::ceil(static_cast<double>(p) * 0x1p53))),
        factor(static_cast<float>(1.0 / (1.0 - static_cast<double>(p)))) {}

  /// x where the element is kept, times the factor; else 0. The mixing function is SplitMix64's.
  __device__ float apply(float x, std::uint64_t row, std::uint64_t col) const {
    std::uint64_t z = key + 0x9e3779b97f4a7c15ull * ((first_row + row) * 0x100000001b3ull + col + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return z >> 11 >= threshold ? x * factor : 0.0f;
  }
};

}  // namespace lomu::cuda

// Adapter factors on their way from the optimizer's float32 arrays into the buffers that products read: rounded,
// scaled, and with zeros around them, for all groups of a model in one launch. Where they go is adapted_layout.h's
// affair.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace lomu::cuda {

/// One rectangle to write, every element of it: columns [from_begin, from_begin + from_cols) are factor * from, and two
/// columns may hold a bias, split into a leading part and the rest so that their sum is exact to 2^-16; the rest is
/// zero. Plain old data without padding: tables of it are compared and copied as bytes.
template <class T>
struct FactorRectangle {
  const float* from = nullptr;  ///< [rows, from_cols], dense; nullptr: none
  const float* bias = nullptr;  ///< [rows]; nullptr: none
  T* to = nullptr;              ///< [rows, cols]
  std::int64_t to_ld = 0;
  std::int32_t rows = 0, cols = 0;
  std::int32_t from_begin = 0, from_cols = 0;
  std::int32_t bias_begin = 0;  ///< the first of the two columns, if there is a bias
  float factor = 1;
  std::int32_t first_block = 0;  ///< number of the rectangle's first block in the launch
  std::int32_t unused = 0;
};

/// Blocks of threads that a rectangle takes.
std::int32_t factor_blocks(std::int32_t rows, std::int32_t cols);

/// Writes `count` rectangles, whose table lies in device memory; their first_block are the sums of factor_blocks()
/// before them, and `blocks` is the sum of all. T is BF16 or float.
template <class T>
void pack_factors(const FactorRectangle<T>* table, std::size_t count, std::int32_t blocks, Stream stream);

}  // namespace lomu::cuda

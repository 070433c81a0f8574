// Copies of a buffer on the device, with a change between float and bfloat16 where the types differ: weights to the
// type they are computed in, the residual stream to a layer's input; and the sum of two. Not for copies between host
// and device.
#pragma once

#include <cstddef>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace lomu::cuda {

/// to[i] = from[i] for i < n, rounded to nearest even where `to` is narrower. Device pointers that do not overlap; any
/// alignment, but only 16-byte aligned ones are fast. n = 0 does nothing.
void copy(const float* from, float* to, std::size_t n, Stream stream);
void copy(const float* from, BF16* to, std::size_t n, Stream stream);
void copy(const BF16* from, float* to, std::size_t n, Stream stream);
void copy(const BF16* from, BF16* to, std::size_t n, Stream stream);

/// into[i] += from[i] for i < n, one float addition each. As copy() otherwise.
void add(const float* from, float* into, std::size_t n, Stream stream);

}  // namespace lomu::cuda

// The sum of several buffers in a given order of additions: how partial gradients of many ranks become one, the same
// bits for any number of ranks. The order is given as a program over a stack, as comm/reduction_tree.h finds it; this
// knows nothing of trees or ranks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// One buffer of a sum: its values are put on the stack, then the two topmost values are added `additions` times.
struct OrderedSource {
  const float* data;  ///< 16-byte aligned
  std::uint32_t additions;
  std::uint32_t unused;
};

/// out[i] = the value left on the stack, for i < n. sources: `count` >= 1 of them, in device memory. depth: the most
/// values on the stack at once, which the program must end with one of. `out` is 16-byte aligned and overlaps no
/// source. n = 0 does nothing. Throws UsageError for count < 1 or a depth outside 1 to kDeepestSum.
void ordered_add(const OrderedSource* sources, int count, int depth, float* out, std::size_t n, Stream stream);

/// 2^38 micro-batches on one rank; a sum over ranks needs no more than 2 log2 of that.
inline constexpr int kDeepestSum = 40;

}  // namespace lomu::cuda

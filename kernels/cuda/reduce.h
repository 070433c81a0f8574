// Sums and maxima over a warp or a block, in an order that only the launch's shape decides; every thread gets the same
// bits. For .cu files only.
#pragma once

#include "kernels/cuda/gpu.h"

namespace lomu::cuda {

/// Over segments of kLanes lanes (a power of two). All 32 lanes take part.
template <int kLanes = 32, class T, class Combine>
__device__ inline T warp_reduce(T v, Combine combine) {
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) v = combine(v, __shfl_xor_sync(~0u, v, d));
  return v;
}

/// Over the block, whose size is a multiple of 32. `slots` is shared memory for one value a warp, for this call alone:
/// a second one needs its own, or a barrier in between.
template <class T, class Combine>
__device__ inline T block_reduce(T v, T* slots, Combine combine) {
  v = warp_reduce(v, combine);
  if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = v;
  __syncthreads();
  T all = slots[0];
  for (unsigned i = 1; i < blockDim.x / 32; ++i) all = combine(all, slots[i]);
  return all;
}

/// Combinations for the two above. Each is commutative to the last bit, which is why all lanes agree.
struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Smaller {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

}  // namespace lomu::cuda

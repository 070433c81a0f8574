// Cuts the factors of all pairs into pieces of some thousand elements, one a block of threads, for what is done element
// by element. For the .cu files of AdamW and of gradient norms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/adapter_pairs.h"
#include "kernels/cuda/gpu.h"

namespace lomu::cuda {

inline constexpr int kFlatThreads = 256;
inline constexpr int kFlatTile = 8192;  ///< elements: 32 a thread, so that the sums at a tile's end cost little

struct FlatTile {
  std::int64_t first;
  std::int32_t count;
  std::int32_t factor;  ///< number of its half
};

struct FlatHalf {
  FactorArrays arrays;
  std::int64_t line;  ///< length of a line: the rank of a left factor, n of a right one
};

struct FlatTables {
  std::vector<FlatHalf> halves;  ///< left and right of each pair in turn
  std::vector<FlatTile> tiles;   ///< in their order

  /// As the device gets them: halves, then, from tiles_offset on, tiles.
  [[nodiscard]] std::vector<std::byte> image() const;
  [[nodiscard]] std::size_t tiles_offset() const { return (halves.size() * sizeof(FlatHalf) + 15) / 16 * 16; }
};

FlatTables flat_tables(std::span<const PairDesc> pairs);

/// Number of the first tile of half `half_number` or a later one, by bisection.
__device__ inline int first_tile_of(const FlatTile* tiles, int count, int half_number) {
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (tiles[middle].factor < half_number) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/// Sum over the block in a fixed order, the same in all threads; N sums at once. slots: 8 N numbers of this call's own.
template <int N>
__device__ inline void flat_block_sum(double (&x)[N], double* slots) {
  constexpr int kWarps = kFlatThreads / 32;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    for (int d = 16; d; d /= 2) x[n] += __shfl_xor_sync(~0u, x[n], d);
    if (threadIdx.x % 32 == 0) slots[n * kWarps + static_cast<int>(threadIdx.x) / 32] = x[n];
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < N; ++n) {
    x[n] = 0.0;
    for (int w = 0; w < kWarps; ++w) x[n] += slots[n * kWarps + w];
  }
}

/// Whether this block is the last of the grid to come here; what thread 0 of the others wrote before is then visible to
/// it. The count starts at 0 and is left so. shared: one int.
__device__ inline bool last_block(unsigned* count, int* shared) {
  if (threadIdx.x == 0) {
    __threadfence();
    *shared = atomicAdd(count, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  const bool last = *shared != 0;
  if (last && threadIdx.x == 0) *count = 0;
  __threadfence();
  return last;
}

}  // namespace lomu::cuda

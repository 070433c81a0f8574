#include "kernels/cuda/flat_tiles.h"
#include "kernels/cuda/gradient_norms.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr std::size_t kSumsOffset = 16;  // after the count of blocks

// Each thread adds its elements one after another; the block adds its threads, and the last block of all the tiles of
// each half, in order.
__global__ void __launch_bounds__(kFlatThreads)
    gradient_norms_kernel(const FlatHalf* halves, const FlatTile* tiles, unsigned* count, double* sums, double* norms,
                          int pairs) {
  SharedArena shared;
  double* slots = shared.take<double>(kFlatThreads / 32);
  int* last = shared.take<int>(1);
  const FlatTile tile = tiles[blockIdx.x];
  const float* grad = halves[tile.factor].arrays.grad + tile.first;
  double sum[1] = {};
  const int thread = static_cast<int>(threadIdx.x);
  const int wide = is_aligned16(grad) ? tile.count / 4 * 4 : 0;
#pragma unroll 4
  for (int i = 4 * thread; i < wide; i += 4 * kFlatThreads) {
    const Vec16 v = load16(grad + i);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const double g = __uint_as_float(v.word[k]);
      sum[0] = fma(g, g, sum[0]);
    }
  }
  for (int i = wide + thread; i < tile.count; i += kFlatThreads) {
    const double g = grad[i];
    sum[0] = fma(g, g, sum[0]);
  }
  flat_block_sum(sum, slots);
  if (thread == 0) sums[blockIdx.x] = sum[0];
  if (last_block(count, last)) {
    const auto blocks = static_cast<int>(gridDim.x);
    for (int pair = thread; pair < pairs; pair += kFlatThreads) {
      double norm = 0.0;
      for (int t = first_tile_of(tiles, blocks, 2 * pair); t < blocks && tiles[t].factor < 2 * pair + 2; ++t) {
        norm += sums[t];
      }
      norms[pair] = norm;
    }
    __syncthreads();
    if (thread == 0) {
      double total = 0.0;
      for (int pair = 0; pair < pairs; ++pair) total += norms[pair];
      norms[pairs] = total;
    }
  }
}

}  // namespace

GradientNorms::GradientNorms(std::span<const PairDesc> pairs) : pairs_(pairs.size()) {
  check_pairs(pairs, false);
  const FlatTables tables = flat_tables(pairs);
  tiles_ = tables.tiles.size();
  tiles_offset_ = tables.tiles_offset();
  table_ = tables.image();
  workspace_bytes_ = kSumsOffset + tiles_ * sizeof(double);
}

void GradientNorms::run(const std::byte* table, std::byte* workspace, double* norms, Stream stream) const {
  if (pairs_ == 0) return;
  const std::size_t shared = SharedArena::bytes<double>(kFlatThreads / 32) + SharedArena::bytes<int>(1);
  launch(gradient_norms_kernel, {static_cast<unsigned>(tiles_), kFlatThreads, shared, stream},
         reinterpret_cast<const FlatHalf*>(table), reinterpret_cast<const FlatTile*>(table + tiles_offset_),
         reinterpret_cast<unsigned*>(workspace), reinterpret_cast<double*>(workspace + kSumsOffset), norms,
         static_cast<int>(pairs_));
}

}  // namespace lomu::cuda

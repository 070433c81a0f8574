// Bound: memory. Reads and writes every float once, in 16-byte accesses where a tile's ends allow it.
#include "kernels/cuda/copy_tiles.h"
#include "kernels/cuda/gpu.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    copy_tiles_kernel(const CopyTile* __restrict__ tiles, const float* __restrict__ from, float* __restrict__ to) {
  const CopyTile tile = tiles[blockIdx.x];
  const float* const source = from + tile.from_begin;
  float* const target = to + tile.to_begin;
  unsigned done = 0;
  if (is_aligned16(source) && is_aligned16(target)) {
    const unsigned wide = tile.count / 4;
    for (unsigned i = threadIdx.x; i < wide; i += kThreads) store16(target + 4 * i, load16(source + 4 * i));
    done = 4 * wide;
  }
  for (unsigned i = done + threadIdx.x; i < tile.count; i += kThreads) target[i] = source[i];
}

}  // namespace

void copy_tiles(const CopyTile* tiles, std::size_t count, const float* from, float* to, Stream stream) {
  if (count == 0) return;
  launch(copy_tiles_kernel, {static_cast<unsigned>(count), kThreads, 0, stream}, tiles, from, to);
}

}  // namespace lomu::cuda

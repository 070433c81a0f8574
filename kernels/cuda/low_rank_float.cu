// Products of floats by fused multiply-adds: a block makes 64 x 64 results from slices of 16 along the depth. Bound by
// shared memory and arithmetic; a test's and a small model's path.
#include "kernels/cuda/low_rank_tiles.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kThreads = 256, kSlice = 16, kPitch = kTile + 1, kPerThread = 4;

struct Slots {
  std::int64_t depth, depth_per_slot, stride;
};

// tile[k][i] = m(row0 + i, k0 + k), zeros outside. Neighbouring threads take neighbouring addresses.
__device__ inline void load_slice(float* tile, FloatOperand m, std::int64_t row0, std::int64_t rows, std::int64_t k0,
                                  std::int64_t k_end) {
#pragma unroll
  for (int e = 0; e < kTile * kSlice / kThreads; ++e) {
    const int at = static_cast<int>(threadIdx.x) + e * kThreads;
    const int i = m.depth == 1 ? at / kSlice : at % kTile, k = m.depth == 1 ? at % kSlice : at / kTile;
    const bool inside = row0 + i < rows && k0 + k < k_end;
    tile[k * kPitch + i] = inside ? m.data[(row0 + i) * m.row + (k0 + k) * m.depth] : 0.0f;
  }
}

__global__ void __launch_bounds__(kThreads)
    float_product_kernel(FloatOperand a, FloatOperand b, float scale, DeviceRows<float> c, std::int64_t m,
                         std::int64_t n, Slots slots) {
  SharedArena shared;
  auto* tile_a = shared.take<float>(kSlice * kPitch);
  auto* tile_b = shared.take<float>(kSlice * kPitch);
  const std::int64_t row0 = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const std::int64_t col0 = static_cast<std::int64_t>(blockIdx.y) * kTile;
  const std::int64_t begin = blockIdx.z * slots.depth_per_slot;
  const std::int64_t end = min(begin + slots.depth_per_slot, slots.depth);
  // Results (i + 16 r, j + 16 s): neighbouring threads read neighbouring words of b and write neighbouring columns.
  const int i = static_cast<int>(threadIdx.x) / 16, j = static_cast<int>(threadIdx.x) % 16;

  float sum[kPerThread][kPerThread] = {};
  for (std::int64_t k0 = begin; k0 < end; k0 += kSlice) {
    load_slice(tile_a, a, row0, m, k0, end);
    load_slice(tile_b, b, col0, n, k0, end);
    __syncthreads();
    for (int k = 0; k < kSlice; ++k) {
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) {
#pragma unroll
        for (int s = 0; s < kPerThread; ++s) {
          sum[r][s] = fmaf(tile_a[k * kPitch + i + 16 * r], tile_b[k * kPitch + j + 16 * s], sum[r][s]);
        }
      }
    }
    __syncthreads();  // the tiles are overwritten
  }
  float* to = c.data + blockIdx.z * slots.stride;
#pragma unroll
  for (int r = 0; r < kPerThread; ++r) {
#pragma unroll
    for (int s = 0; s < kPerThread; ++s) {
      const std::int64_t row = row0 + i + 16 * r, col = col0 + j + 16 * s;
      if (row < m && col < n) to[row * c.ld + col] = scale * sum[r][s];
    }
  }
}

}  // namespace

void float_product(FloatOperand a, FloatOperand b, float scale, DeviceRows<float> c, std::int64_t slot_stride,
                   std::int64_t m, std::int64_t n, std::int64_t depth, std::int64_t slots, std::int64_t depth_per_slot,
                   Stream stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(m, kTile)), static_cast<unsigned>(ceil_div(n, kTile)),
                  static_cast<unsigned>(slots));
  launch(float_product_kernel, {grid, kThreads, 2 * SharedArena::bytes<float>(kSlice * kPitch), stream}, a, b, scale, c,
         m, n, Slots{depth, depth_per_slot, slot_stride});
}

}  // namespace lomu::cuda

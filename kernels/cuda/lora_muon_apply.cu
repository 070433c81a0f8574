// Launch 3 of a LoRA-Muon step. Bound: memory up to rank 64 (22 bytes a parameter), above by the tensor cores' double
// rate and by K's way from the L2 cache, which each panel of 16 or 32 rows reads once. Tiles are taken in reverse, so
// that the last rows that launch 1 read are found in the L2 cache.
#include "kernels/cuda/factor_panel.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

template <class Real>
constexpr int kBlocksPerSm = std::is_same_v<Real, double> ? 3 : 2;

/// Up to here K is brought to shared memory, once for all panels of a tile.
constexpr int kMaxStagedRank = 64;

/// Shared numbers of a kernel's block for ranks padded to `Columns`.
template <int Columns>
constexpr int kSharedNumbers = PanelShape<Columns>::kSize + (Columns <= kMaxStagedRank ? Columns * (Columns + 4) : 0);

/// What happens to an element: factor <- keep factor + move (direction K).
template <class Real>
struct Move {
  Real keep, move;
};

/// One tile. Of a panel's blocks of 8 x 8, eight warps take 2 x N each.
template <int Columns, class Real>
__device__ void apply_tile(const Half& half, const RowTile& tile, const Real* step_matrix,
                           const MomentumRule<Real>& rule, const Move<Real>& move, SharedArena& shared) {
  using Shape = PanelShape<Columns>;
  constexpr bool kStaged = Columns <= kMaxStagedRank;
  constexpr bool kHoldsFactor = Shape::kQuads == 2;  // else it is read when it is needed
  [[maybe_unused]] constexpr int kAtOnce = kHoldsFactor ? 2 : 1;
  constexpr int kWarpRows = Shape::kRows / 16, kWarpColumns = 8 / kWarpRows;
  constexpr int kCount = Columns / 8 / kWarpColumns;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int far = lane / 4, near = lane % 4;
  const int row0 = warp / kWarpColumns * 16, column0 = warp % kWarpColumns * kCount * 8;

  // 1. K: symmetric, [depth, columns].
  Real* panel = shared.take<Real>(Shape::kSize);
  Strided<Real> k{step_matrix, Columns, 1};
  int depth = (half.rank + 3) / 4 * 4;
  if constexpr (kStaged) {
    constexpr int kPitch = Columns + 4;
    Real* staged = shared.take<Real>(Columns * kPitch);
    for (int i = thread; i < Columns * Columns; i += kThreads) {
      staged[i / Columns * kPitch + i % Columns] = step_matrix[i];
    }
    k = {staged, kPitch, 1};
  }
  const Strided<Real> direction = panel_view<Shape>(half, panel);

  for (int row = 0; row < tile.rows; row += Shape::kRows) {
    // 2. The direction, into the panel; the momentum goes back at once. Each thread overwrites only products that it
    // has itself taken from the last panel.
    const auto place = [&](int q) { return place_of<Shape, Columns>(half, tile.first + row, tile.rows - row, q); };
    Quad x[kHoldsFactor ? Shape::kQuads : 1];
#pragma unroll kAtOnce
    for (int q = 0; q < Shape::kQuads; ++q) {
      const QuadPlace at = place(q);
      const int to = shared_place<Shape, Columns>(half, q);
      if constexpr (kHoldsFactor) x[q] = load_quad(half.arrays.factor, at);
      Quad m = load_quad(half.arrays.first_moment, at);
      const Quad g = load_quad(half.arrays.grad, at);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Real updated = rule.momentum(m.x[i], g.x[i]);
        panel[to + i] = rule.direction(updated, g.x[i]);
        m.x[i] = as_float(updated);
      }
      store_quad(half.arrays.first_moment, at, m);
    }
    __syncthreads();

    // 3. Its product with K, back into the panel.
    Real acc[2 * kCount][2] = {};
    const Strided<Real> left[2] = {direction.from(row0, 0), direction.from(row0 + 8, 0)};
    multiply_blocks<2, kCount>(acc, left, k.from(0, column0), depth);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 2 * kCount; ++n) {
      const int i = row0 + n / kCount * 8 + far, j = column0 + n % kCount * 8 + 2 * near;
      for (int e = 0; e < 2; ++e) panel[i * direction.row + (j + e) * direction.column] = acc[n][e];
    }
    __syncthreads();

    // 4. The factor and its copy.
#pragma unroll kAtOnce
    for (int q = 0; q < Shape::kQuads; ++q) {
      const QuadPlace at = place(q);
      const int from = shared_place<Shape, Columns>(half, q);
      Quad y = kHoldsFactor ? x[kHoldsFactor ? q : 0] : load_quad(half.arrays.factor, at);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        y.x[i] = as_float(mul_add(move.move, panel[from + i], move.keep * widened<Real>(y.x[i])));
      }
      store_quad(half.arrays.factor, at, y);
      store_packed(half.arrays.packed, at, y);
    }
  }
}

template <class Real>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm<Real>)
    apply_kernel(Workspace<Real> space, StepRule step_rule) {
  if (*space.failures == 0) {
    SharedArena shared;
    const RowTile tile = space.row_tiles[gridDim.x - 1 - blockIdx.x];
    const Half& half = space.halves[tile.half];
    const MomentumRule<Real> rule(step_rule);
    // Split decay: each factor shrinks by q and its step grows by 1 / q, so that the product decays by q^2.
    const double lr = step_rule.step->lr, q = sqrt(1.0 - step_rule.weight_decay * lr);
    const Move<Real> move{real<Real>(q), real<Real>(-lr * half.step_multiplier / (2.0 * half.scale) / q)};
    const Real* k = space.numbers + half.step_matrix;
    switch (padded_rank(half.rank)) {
      case 16: apply_tile<16>(half, tile, k, rule, move, shared); break;
      case 32: apply_tile<32>(half, tile, k, rule, move, shared); break;
      case 64: apply_tile<64>(half, tile, k, rule, move, shared); break;
      case 128: apply_tile<128>(half, tile, k, rule, move, shared); break;
      default: apply_tile<256>(half, tile, k, rule, move, shared); break;
    }
  }
}

/// Of the largest block: from 64 columns on it is that of 64, whose K is staged.
int shared_numbers(int largest_rank) {
  static_assert(kSharedNumbers<64> >= kSharedNumbers<128> && kSharedNumbers<64> >= kSharedNumbers<256> &&
                kSharedNumbers<64> >= kSharedNumbers<32> && kSharedNumbers<32> >= kSharedNumbers<16>);
  const int columns = padded_rank(largest_rank);
  return columns == 16 ? kSharedNumbers<16> : columns == 32 ? kSharedNumbers<32> : kSharedNumbers<64>;
}

}  // namespace

template <class Real>
void launch_apply(const Workspace<Real>& work, const StepRule& rule, int tiles, int largest_rank, Stream stream) {
  const std::size_t shared = SharedArena::bytes<Real>(shared_numbers(largest_rank)) + 16;  // two pieces
  launch(apply_kernel<Real>, {static_cast<unsigned>(tiles), kThreads, shared, stream}, work, rule);
}

template void launch_apply(const Workspace<double>&, const StepRule&, int, int, Stream);
template void launch_apply(const Workspace<TwoFloat>&, const StepRule&, int, int, Stream);

}  // namespace lomu::cuda

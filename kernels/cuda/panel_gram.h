// Grams of a factor and of its direction over some rows, by one block of threads, into one slot. Device code shared by
// the first kernel of a LoRA-Muon step and by the gauge balance.
#pragma once

#include "kernels/cuda/factor_panel.h"

namespace lomu::cuda {

/// Columns of a panel: the rank padded to 16, 32 or 64, or two groups of 64.
template <int Columns>
struct GramShape {
  static constexpr int kRows = 2048 / Columns;
  static constexpr int kQuads = 2;
  static constexpr int kTallPitch = Columns + 4, kWidePitch = kRows + 4;
};
/// Of one matrix; both are needed side by side. Largest: 16 wide columns of 132, or 128 of 20.
inline constexpr int kGramPanelSize = 2560;

struct GramSource {
  const Half& half;
  std::int64_t first;  ///< row
  int rows;
  int column_i, column_j;  ///< of the rank: where the groups begin
  bool with_direction;     ///< else only the Gram of the factor
};

/// Sum over the block in a fixed order, in thread 0. slot: 8 numbers.
template <class Real>
__device__ inline Real block_sum(Real x, Real* slot) {
  for (int d = 16; d; d /= 2) x = x + shuffle_xor(x, d);
  if (threadIdx.x % 32 == 0) slot[threadIdx.x / 32] = x;
  __syncthreads();
  for (int i = 1; i < kThreads / 32; ++i) x = x + slot[i];
  return x;
}

/// Writes the blocks (i, j) of both Grams, i of the group at column_i and j of that at column_j, to `slot`, and
/// returns, in thread 0, the squared norm of the gradient over the columns of group i. panels: 2 kGramPanelSize
/// numbers; slots: 8 numbers. A barrier lies between what it writes and its return.
///
/// Four warps take the factor, four the direction. Of B = min(Columns, 64) / 8 blocks along, a warp takes the rows of
/// blocks w and B - 1 - w, which have B + 1 blocks in the upper triangle for every w; warps left over share the rows of
/// a panel out and are added in order at the end. Loads of a panel are in flight while the last one is multiplied.
template <int Columns, class Real>
__device__ Real panel_gram(const GramSource& from, const MomentumRule<Real>& rule, Real* panels, Real* slots,
                           Real* slot) {
  using Shape = GramShape<Columns>;
  constexpr bool kTwoGroups = Columns > kGroup;
  constexpr int kSplit = kTwoGroups ? kGroup : Columns;
  constexpr int kBlocks = kSplit / 8;
  constexpr int kRowShares = kTwoGroups ? 1 : 8 / kBlocks;
  constexpr int kCount = kTwoGroups ? 2 * kBlocks : kBlocks + 1;  // blocks of a warp
  constexpr int kShareRows = Shape::kRows / kRowShares;
  const Half& half = from.half;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int gram = warp / 4, place = warp % 4 % (4 / kRowShares), share = warp % 4 / (4 / kRowShares);
  const bool working = gram == 0 || from.with_direction;
  Real* const direction_panel = panels + kGramPanelSize;
  const Strided<Real> panel = panel_view<Shape>(half, gram == 0 ? panels : direction_panel);

  Quad x[2], m[2], g[2];
  const auto load = [&](int row, int q) {
    const QuadPlace at =
        place_of<Shape, Columns, kSplit>(half, from.first + row, from.rows - row, q, from.column_i, from.column_j);
    x[q] = load_quad(half.arrays.factor, at);
    if (from.with_direction) {
      m[q] = load_quad(half.arrays.first_moment, at);
      g[q] = load_quad(half.arrays.grad, at);
    }
  };
  // With two groups registers are short, and the products take longer than the loads.
  const auto load_ahead = [&](int row) {
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      if (!kTwoGroups && row < from.rows) load(row, q);
    }
  };
  Real acc[kCount][2] = {};
  Real grad_norm = {};
  load_ahead(0);
  for (int row = 0; row < from.rows; row += Shape::kRows) {
    __syncthreads();  // the last panel has been multiplied
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      if (kTwoGroups) load(row, q);
      const int at = shared_place<Shape, Columns>(half, q);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        panels[at + i] = widened<Real>(x[q].x[i]);
        if (!from.with_direction) continue;
        direction_panel[at + i] = rule.direction(rule.momentum(m[q].x[i], g[q].x[i]), g[q].x[i]);
        if (!kTwoGroups) grad_norm = mul_add(widened<Real>(g[q].x[i]), widened<Real>(g[q].x[i]), grad_norm);
      }
    }
    __syncthreads();
    load_ahead(row + Shape::kRows);
    if (working) {
      const Strided<Real> rows = panel.from(share * kShareRows, 0);
      if constexpr (kTwoGroups) {
        const Strided<Real> left[2] = {rows.from(0, 8 * place).transposed(),
                                       rows.from(0, 8 * (kBlocks - 1 - place)).transposed()};
        multiply_blocks<2, kBlocks>(acc, left, rows.from(0, kGroup), kShareRows);
      } else {
        multiply_triangle<kBlocks>(acc, rows, place, kShareRows);
      }
    }
  }

  if constexpr (kRowShares > 1) {
    constexpr int kNumbers = 2 * kCount * 32;  // of one warp
    __syncthreads();
    if (share > 0) {
      Real* to = panels + warp * kNumbers + lane;
#pragma unroll
      for (int n = 0; n < 2 * kCount; ++n) to[n * 32] = acc[n / 2][n % 2];
    }
    __syncthreads();
    if (share == 0) {
      for (int s = 1; s < kRowShares; ++s) {
        const Real* other = panels + (warp + s * (4 / kRowShares)) * kNumbers + lane;
#pragma unroll
        for (int n = 0; n < 2 * kCount; ++n) acc[n / 2][n % 2] = acc[n / 2][n % 2] + other[n * 32];
      }
    }
  }

  if (working && share == 0) {
    const int along = blocks_along(half.rank);
    Real* to = slot + static_cast<std::int64_t>(gram) * gram_size(half.rank);
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const bool upper = kTwoGroups ? n < kBlocks : n < kBlocks - place;
      const int column = kTwoGroups ? n % kBlocks : upper ? place + n : n - 1;
      const int block_i = from.column_i / 8 + (upper ? place : kBlocks - 1 - place);
      const int block_j = from.column_j / 8 + column;
      if (block_j >= along) continue;  // beyond the rank
      Real* block = to + block_index(along, block_i, block_j) * 64;
      block[2 * lane] = acc[n][0];
      block[2 * lane + 1] = acc[n][1];
    }
  }
  return block_sum(grad_norm, slots);
}

/// The same for whatever columns `from` has; every rank has one shape of panels, whoever its company is.
template <class Real>
__device__ inline Real panel_gram_of(const GramSource& from, const MomentumRule<Real>& rule, Real* panels, Real* slots,
                                     Real* slot) {
  if (from.column_i != from.column_j) return panel_gram<2 * kGroup>(from, rule, panels, slots, slot);
  if (from.half.rank <= 16) return panel_gram<16>(from, rule, panels, slots, slot);
  if (from.half.rank <= 32) return panel_gram<32>(from, rule, panels, slots, slot);
  return panel_gram<kGroup>(from, rule, panels, slots, slot);
}

}  // namespace lomu::cuda

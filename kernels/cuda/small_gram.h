// Reads Grams back out of the slots that tiles of rows wrote them to, always adding slots in the order of their rows.
// Device code of the kernels that have a block of threads for each factor.
#pragma once

#include "kernels/cuda/small_square.h"

namespace lomu::cuda {

enum class GramKind { kFactor, kDirection };

/// The sum over slots of number `at` of a Gram.
template <class Real>
__device__ inline Real sum_slots(const Workspace<Real>& space, const Half& half, GramKind kind, int at) {
  const std::int64_t size = gram_size(half.rank);
  const Real* from = space.numbers + half.partials + (kind == GramKind::kDirection ? size : 0) + at;
  Real sum = {};
#pragma unroll 4
  for (int slot = 0; slot < half.slots; ++slot) sum = sum + from[slot * 2 * size];
  return sum;
}

/// Writes a whole Gram, times 2^exponent. Does not end with a barrier.
template <class Real>
__device__ void sum_gram(const Workspace<Real>& space, const Half& half, GramKind kind, int exponent, Square<Real> to) {
  const int along = blocks_along(half.rank);
  const Real factor = real<Real>(ldexp(1.0, exponent));
  for (int at = static_cast<int>(threadIdx.x); at < along * along * 64; at += threads()) {
    const int block_i = at / 64 / along, block_j = at / 64 % along;
    const int i = block_i * 8 + at % 64 / 8, j = block_j * 8 + at % 8;
    if (i > j || j >= half.rank) continue;
    const Real sum = sum_slots(space, half, kind, block_index(along, block_i, block_j) * 64 + at % 64);
    to(i, j) = to(j, i) = factor * sum;
  }
}

/// The trace of a Gram, the same in all threads. diagonal: kMaxRank numbers.
template <class Real>
__device__ double gram_trace(const Workspace<Real>& space, const Half& half, GramKind kind, Real* diagonal) {
  const int along = blocks_along(half.rank);
  for (int i = static_cast<int>(threadIdx.x); i < half.rank; i += threads()) {
    diagonal[i] = sum_slots(space, half, kind, block_index(along, i / 8, i / 8) * 64 + i % 8 * 9);
  }
  __syncthreads();
  const Real sum = sum_of<Real>(half.rank, [&](int i) { return diagonal[i]; });
  __syncthreads();  // all have read the diagonal
  return as_double(sum);
}

template <class Real>
__device__ inline double grad_norm_squared(const Workspace<Real>& space, const Half& half) {
  const Real* norms = space.numbers + half.grad_norms;
  return as_double(sum_of<Real>(half.slots * groups_of(half.rank), [&](int i) { return norms[i]; }));
}

}  // namespace lomu::cuda

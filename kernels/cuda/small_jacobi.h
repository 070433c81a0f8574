// The eigen-decomposition that the small stage of LoRA-Muon needs, by one-sided Jacobi rotations on the rows of a
// pivoted Cholesky factor: with D = G^T G, rotating rows of G until they are orthogonal leaves sqrt(lambda_i) u_i^T in
// row i. One matrix is worked on instead of two, a pair of rows needs no more than the eight threads that hold it, and
// the pivoting does much of the work beforehand, so that six sweeps or so are enough (Veselic and Hari, Numer. Math.
// 56, 1989; Drmac and Veselic, SIAM J. Matrix Anal. Appl. 29, 2008). Device code; no eigenvectors beyond what rows
// hold.
#pragma once

#include "kernels/cuda/small_square.h"

namespace lomu::cuda {

/// Rows G with G^T G = a, in place, for a symmetric positive semidefinite a. Pivots are taken where the remaining
/// diagonal is largest; once it is rounding noise, the rows left are zero. scratch: kMaxRank + 2 ints.
template <class Real>
__device__ void pivoted_cholesky_rows(Square<Real> a, int* scratch) {
  const int size = a.size, thread = static_cast<int>(threadIdx.x);
  int* const done = scratch;
  int* const pivot_row = scratch + kMaxRank;
  for (int i = thread; i < size; i += threads()) done[i] = 0;
  const Real noise =
      largest_of<Real>(size, [&](int i) { return a(i, i); }) * real<Real>(static_cast<double>(size) * kUnit<Real>);
  __syncthreads();
  for (int step = 0; step < size; ++step) {
    if (thread < 32) {
      int best = -1;
      Real largest = noise;
      for (int i = thread; i < size; i += 32) {
        if (!done[i] && a(i, i) > largest) {
          best = i;
          largest = a(i, i);
        }
      }
      for (int d = 16; d; d /= 2) {
        const Real other = shuffle_xor(largest, d);
        const int row = __shfl_xor_sync(~0u, best, d);
        const bool first_of_equals = !(largest > other) && row >= 0 && (best < 0 || row < best);
        if (other > largest || first_of_equals) {
          best = row;
          largest = other;
        }
      }
      if (thread == 0) *pivot_row = best;
    }
    __syncthreads();
    const int p = *pivot_row;
    if (p < 0) break;  // for all threads alike
    const Real inverse = real<Real>(1.0) / root(a(p, p));
    __syncthreads();  // all have read the pivot
    for (int j = thread; j < size; j += threads()) a(p, j) = done[j] ? Real{} : a(p, j) * inverse;
    __syncthreads();
    if (thread == 0) done[p] = 1;
    for (int i = thread / 16; i < size; i += threads() / 16) {
      if (i == p || done[i]) continue;
      const Real left = -a(p, i);
      for (int j = thread % 16; j < size; j += 16) {
        if (j != p && !done[j]) a(i, j) = mul_add(left, a(p, j), a(i, j));
      }
    }
    __syncthreads();
  }
  for_each_element(size, [&](int i, int j) {
    if (!done[i]) a(i, j) = {};
  });
  __syncthreads();
}

/// The rotation that makes two vectors of squared norms a and b and inner product c != 0 orthogonal: by the smaller of
/// the two angles (Golub and Van Loan, 8.5.2).
template <class Real>
struct Rotation {
  Real cosine, sine, tangent;
  __device__ Rotation(Real a, Real b, Real c) {
    const Real one = real<Real>(1.0);
    const Real zeta = (b - a) / (c + c);
    const bool negative = Real{} > zeta;
    const Real size = negative ? -zeta : zeta;
    // Beyond 1e9 the root is size itself, and its square may not be a float.
    const Real reach = size > real<Real>(1e9) ? size : root(mul_add(size, size, one));
    tangent = (negative ? -one : one) / (size + reach);
    cosine = one / root(mul_add(tangent, tangent, one));
    sine = cosine * tangent;
  }
};

/// Rotates the rows of g until all are orthogonal to each other; false if they are not after kMostSweeps. Rounds of
/// disjoint pairs go through all pairs in a fixed order (a round-robin tournament), eight threads to a pair. Squared
/// norms are summed at the start of a sweep and then follow the rotations: in the sweep that finds nothing to rotate
/// they are exact. votes: kThreads / 32 ints, which some threads may still read at the end; norms: kMaxRank numbers.
template <class Real>
__device__ bool orthogonalise_rows(Square<Real> g, int* votes, Real* norms) {
  constexpr int kMostSweeps = 40;
  const int size = g.size, thread = static_cast<int>(threadIdx.x), lane = thread % 8;
  const int players = size + size % 2;  // with an odd number one sits out
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    for (int i = thread; i < size; i += threads()) {
      const Vector<Real> row{&g(i, 0), 1};
      norms[i] = inner(row, row, 0, size);
    }
    __syncthreads();
    bool moved = false;
    for (int round = 0; round < players - 1; ++round) {
      for (int first = thread / 32 * 4; first < players / 2; first += threads() / 8) {  // the same for a whole warp
        const int pair = first + thread % 32 / 8;
        // The last player stays, the others move round a circle of the rest; no division, which would be slow.
        const int forward = round + pair, backward = round - pair;
        const int p = pair == 0 ? players - 1 : forward < players - 1 ? forward : forward - (players - 1);
        const int q = backward >= 0 ? backward : backward + (players - 1);
        const bool plays = pair < players / 2 && p < size && q < size;
        Real c = {};
#pragma unroll 2
        for (int i = lane; plays && i < size; i += 8) c = mul_add(g(p, i), g(q, i), c);
        for (int d = 4; d; d /= 2) c = c + shuffle_xor(c, d);
        const Real a = plays ? norms[p] : Real{}, b = plays ? norms[q] : Real{};
        __syncwarp();  // all have read the norms
        if (!plays || !cosine_exceeds(c, a, b, kUnit<Real> * kUnit<Real>)) continue;
        moved = moved || cosine_exceeds(c, a, b, kOrthogonal<Real>);
        const Rotation<Real> turn(a, b, c);
        if (lane == 0) {
          norms[p] = mul_add(-turn.tangent, c, a);
          norms[q] = mul_add(turn.tangent, c, b);
        }
#pragma unroll 2  // more would need more registers than four blocks on an SM leave
        for (int i = lane; i < size; i += 8) {
          const Real x = g(p, i), y = g(q, i);
          g(p, i) = mul_add(turn.cosine, x, -(turn.sine * y));
          g(q, i) = mul_add(turn.sine, x, turn.cosine * y);
        }
      }
      __syncthreads();
    }
    const bool any = __any_sync(~0u, moved) != 0;
    if (thread % 32 == 0) votes[thread / 32] = any;
    __syncthreads();
    bool again = false;
    for (int w = 0; w < threads() / 32; ++w) again = again || votes[w] != 0;
    if (!again) return true;
  }
  return false;
}

}  // namespace lomu::cuda

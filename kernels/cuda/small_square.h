// r x r matrices, worked on by one block of threads: products, triangular solves, Cholesky factors. r is at most 256
// and a matrix lies in shared or in global memory. Device code of the small stage of LoRA-Muon, not a matrix library.
//
// Every function is called by all threads of the block, and unless it says otherwise begins and ends with its matrices
// visible to all of them.
#pragma once

#include "kernels/cuda/lora_muon_tables.h"
#include "kernels/cuda/mma_f64.h"

namespace lomu::cuda {

template <class Real>
struct Square {
  Real* data;
  int size, pitch;
  __device__ Real& operator()(int i, int j) const { return data[i * pitch + j]; }
};

/// Threads of this block: a multiple of 32. No number depends on how many they are.
__device__ inline int threads() {
  return static_cast<int>(blockDim.x);
}

/// Calls visit(i, j) for all elements, each by one thread; neighbours in a row by neighbouring threads.
template <class Visit>
__device__ inline void for_each_element(int size, Visit visit) {
  for (int at = static_cast<int>(threadIdx.x); at < size * size; at += threads()) visit(at / size, at % size);
}

/// Both triangles become their mean.
template <class Real>
__device__ inline void symmetrise(Square<Real> a) {
  for_each_element(a.size, [&](int i, int j) {
    if (i < j) a(i, j) = a(j, i) = real<Real>(0.5) * (a(i, j) + a(j, i));
  });
  __syncthreads();
}

template <class Real>
__device__ inline void multiply_all(Square<Real> a, Real factor) {
  for_each_element(a.size, [&](int i, int j) { a(i, j) = factor * a(i, j); });
  __syncthreads();
}

/// The sum of term(i) over i < count, by every warp for itself and in the same order; the same in all threads.
template <class Real, class Term>
__device__ inline Real sum_of(int count, Term term) {
  Real sum = {};
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) % 32; i < count; i += 32) sum = sum + term(i);
  for (int d = 16; d; d /= 2) sum = sum + shuffle_xor(sum, d);
  return sum;
}

/// Likewise the largest of term(i) and 0.
template <class Real, class Term>
__device__ inline Real largest_of(int count, Term term) {
  Real largest = {};
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) % 32; i < count; i += 32) {
    if (term(i) > largest) largest = term(i);
  }
  for (int d = 16; d; d /= 2) {
    const Real other = shuffle_xor(largest, d);
    if (other > largest) largest = other;
  }
  return largest;
}

template <class Real>
__device__ inline Real trace(Square<Real> a) {
  return sum_of<Real>(a.size, [&](int i) { return a(i, i); });
}

/// out = a b, in 8 x 8 blocks, one warp each; out is neither of them.
template <class Real>
__device__ void multiply(Square<Real> out, Strided<Real> a, Strided<Real> b) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int far = lane / 4, near = lane % 4, size = out.size, along = blocks_along(size);
  for (int block = warp; block < along * along; block += threads() / 32) {
    const int row = block / along * 8, column = block % along * 8;
    Real d[2] = {};
    if constexpr (std::is_same_v<Real, double>) {
      const int i = row + far, j = column + far;
#pragma unroll 2
      for (int k0 = 0; k0 < size; k0 += 4) {
        const int k = k0 + near;
        mma_f64(d, k < size && i < size ? a(i, k) : 0.0, k < size && j < size ? b(k, j) : 0.0);
      }
    } else if (row + far < size) {
      for (int k = 0; k < size; ++k) {
        const Real left = a(row + far, k);
        for (int e = 0; e < 2; ++e) {
          const int j = column + 2 * near + e;
          if (j < size) d[e] = mul_add(left, b(k, j), d[e]);
        }
      }
    }
    for (int e = 0; e < 2; ++e) {
      const int i = row + far, j = column + 2 * near + e;
      if (i < size && j < size) out(i, j) = d[e];
    }
  }
  __syncthreads();
}
template <class Real>
__device__ inline Strided<Real> view(Square<Real> a) {
  return {a.data, a.pitch, 1};
}

/// A lower triangular matrix with the reciprocals of its diagonal.
template <class Real>
struct Lower {
  Square<Real> matrix;
  Real* reciprocal;
};

/// `count` numbers, `stride` apart.
template <class Real>
struct Vector {
  Real* data;
  int stride;
  __device__ Real& operator()(int i) const { return data[i * stride]; }
};

/// The inner product of l and v over [begin, end), in four running sums that hide the latency of an addition.
template <class Real>
__device__ inline Real inner(Vector<Real> l, Vector<Real> v, int begin, int end) {
  Real sum[4] = {};
  int k = begin;
#pragma unroll 1
  for (; k + 4 <= end; k += 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = mul_add(l(k + i), v(k + i), sum[i]);
  }
#pragma unroll 1
  for (; k < end; ++k) sum[0] = mul_add(l(k), v(k), sum[0]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

enum class Triangular { kSolve, kSolveTransposed, kMultiply, kMultiplyTransposed };

/// v <- L^-1 v, L^-T v, L v or L^T v, in place, by one thread.
template <Triangular Op, class Real>
__device__ inline void apply_lower(const Lower<Real>& l, Vector<Real> v) {
  const int size = l.matrix.size;
  const auto row = [&](int i) { return Vector<Real>{&l.matrix(i, 0), 1}; };
  const auto column = [&](int j) { return Vector<Real>{&l.matrix(0, j), l.matrix.pitch}; };
  for (int n = 0; n < size; ++n) {
    const int i = Op == Triangular::kSolve || Op == Triangular::kMultiplyTransposed ? n : size - 1 - n;
    if constexpr (Op == Triangular::kSolve) v(i) = (v(i) - inner(row(i), v, 0, i)) * l.reciprocal[i];
    if constexpr (Op == Triangular::kSolveTransposed) {
      v(i) = (v(i) - inner(column(i), v, i + 1, size)) * l.reciprocal[i];
    }
    if constexpr (Op == Triangular::kMultiply) v(i) = inner(row(i), v, 0, i + 1);
    if constexpr (Op == Triangular::kMultiplyTransposed) v(i) = inner(column(i), v, i, size);
  }
}

template <Triangular Op, class Real>
__device__ inline void apply_to_rows(const Lower<Real>& l, Square<Real> a) {
  for (int i = static_cast<int>(threadIdx.x); i < a.size; i += threads()) apply_lower<Op>(l, Vector<Real>{&a(i, 0), 1});
  __syncthreads();
}
template <Triangular Op, class Real>
__device__ inline void apply_to_columns(const Lower<Real>& l, Square<Real> a) {
  for (int j = static_cast<int>(threadIdx.x); j < a.size; j += threads()) {
    apply_lower<Op>(l, Vector<Real>{&a(0, j), a.pitch});
  }
  __syncthreads();
}

/// The Cholesky factor of a, in its lower triangle; false, and a destroyed, when a pivot is not above its rounding
/// noise: r units of the diagonal entry that r squares were taken from. diagonal: that of a.
template <class Real>
__device__ bool cholesky(Square<Real> a, const Real* diagonal, Real* reciprocal) {
  const int size = a.size, thread = static_cast<int>(threadIdx.x);
  const Real noise = real<Real>(static_cast<double>(size) * kUnit<Real>);
  for (int k = 0; k < size; ++k) {
    const Real pivot = a(k, k);
    const bool sound = pivot > noise * diagonal[k];
    if (!sound) {
      __syncthreads();  // all have read the pivot
      return false;
    }
    const Real length = root(pivot);
    const Real inverse = real<Real>(1.0) / length;
    for (int i = k + 1 + thread; i < size; i += threads()) a(i, k) = a(i, k) * inverse;
    if (thread == 0) reciprocal[k] = inverse;
    __syncthreads();
    if (thread == 0) a(k, k) = length;
    for (int i = k + 1 + thread / 16; i < size; i += threads() / 16) {
      const Real left = -a(i, k);
      for (int j = k + 1 + thread % 16; j <= i; j += 16) a(i, j) = mul_add(left, a(j, k), a(i, j));
    }
    __syncthreads();
  }
  return true;
}

/// What a Cholesky factorisation with shifts came to.
struct Shifts {
  int raises;
  bool done;
};

/// Writes the matrix by fill(), which need not end with a barrier, and factorises it. Where a pivot is not sound,
/// 1e-12 tr / r is added to the diagonal, then ten times that, and so on. scratch: 2 kMaxRank numbers; the second half
/// gets the reciprocals of the diagonal.
template <class Real, class Fill>
__device__ Shifts shifted_cholesky(Square<Real> a, Real* scratch, Fill fill) {
  constexpr int kMostRaises = 30;
  Real* const diagonal = scratch;
  double shift = 0.0;
  for (int raises = 0; raises < kMostRaises; ++raises) {
    fill();
    __syncthreads();
    const double mean = as_double(trace(a)) / a.size;
    const bool usable = is_finite(mean) && mean > 0.0;
    if (raises > 0) shift = raises == 1 ? 1e-12 * mean : 10.0 * shift;
    __syncthreads();  // all have read the diagonal
    if (!usable) return {raises, false};
    for (int i = static_cast<int>(threadIdx.x); i < a.size; i += threads()) {
      diagonal[i] = a(i, i) = a(i, i) + real<Real>(shift);
    }
    __syncthreads();
    if (cholesky(a, diagonal, scratch + kMaxRank)) return {raises, true};
  }
  return {kMostRaises, false};
}

/// a <- b, which may lie in another kind of memory.
template <class Real>
__device__ inline void copy(Square<Real> a, Square<Real> b) {
  for_each_element(a.size, [&](int i, int j) { a(i, j) = b(i, j); });
  __syncthreads();
}

}  // namespace lomu::cuda

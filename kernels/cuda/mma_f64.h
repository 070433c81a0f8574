// Products of 8 x 8 blocks by one warp: double on the tensor cores (sm_80 and later), TwoFloat by ordinary
// instructions, in the same distribution over lanes. For .cu files.
#pragma once

#include "kernels/cuda/real.h"

namespace lomu::cuda {

#ifndef __CUDACC__
namespace emulated {
struct MmaF64Lane {
  double a, b, d[2];
};
LOMU_EMU_RESOLVER void resolve_mma_f64(void* const* lanes, unsigned active, emu::Place place) {
  if (active != ~0u) emu::fail(place, "mma needs all 32 lanes, has %#x", active);
  const auto lane = [lanes](int l) { return static_cast<MmaF64Lane*>(lanes[l]); };
  for (int l = 0; l < 32; ++l) {
    for (int e = 0; e < 2; ++e) {
      for (int k = 0; k < 4; ++k) {
        lane(l)->d[e] = fma(lane(l / 4 * 4 + k)->a, lane((l % 4 * 2 + e) * 4 + k)->b, lane(l)->d[e]);
      }
    }
  }
}
}  // namespace emulated
#endif

/// mma.sync m8n8k4: d += a b with a [8, 4], b [4, 8], d [8, 8] of double. A lane holds a: (lane / 4, lane % 4);
/// b: (lane % 4, lane / 4); d: (lane / 4, 2 (lane % 4)) and (lane / 4, 2 (lane % 4) + 1).
__device__ inline void mma_f64(double (&d)[2], double a, double b, GPU_PLACE) {
#ifdef __CUDACC__
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+d"(d[0]), "+d"(d[1])
               : "d"(a), "d"(b));
#else
  emulated::MmaF64Lane arguments{a, b, {d[0], d[1]}};
  emu::warp_collective("mma", ~0u, &arguments, emulated::resolve_mma_f64, false, place);
  d[0] = arguments.d[0];
  d[1] = arguments.d[1];
#endif
}

/// A matrix by its element (i, j): at data[i * row + j * column].
template <class Real>
struct Strided {
  const Real* data;
  int row, column;
  __device__ const Real& operator()(int i, int j) const { return data[i * row + j * column]; }
  __device__ Strided from(int i, int j) const { return {data + i * row + j * column, row, column}; }
  __device__ Strided transposed() const { return {data, column, row}; }
};

/// d[i N + j] += a_i b_j for M x N blocks of 8 x 8, over `depth`, a multiple of 4 within both: a_i is a[i] [8, depth],
/// b_j is b [depth, 8] from column 8 j.
template <int M, int N, class Real>
__device__ inline void multiply_blocks(Real (&d)[M * N][2], const Strided<Real> (&a)[M], Strided<Real> b, int depth) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int far = lane / 4, near = lane % 4;
  if constexpr (std::is_same_v<Real, double>) {
#pragma unroll 1  // with more, the loads of later rounds push sums out of the registers
    for (int k = 0; k < depth; k += 4) {
      double left[M];
#pragma unroll
      for (int i = 0; i < M; ++i) left[i] = a[i](far, k + near);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const double right = b(k + near, 8 * j + far);
#pragma unroll
        for (int i = 0; i < M; ++i) mma_f64(d[i * N + j], left[i], right);
      }
    }
  } else {
#pragma unroll 1
    for (int k = 0; k < depth; ++k) {
#pragma unroll
      for (int n = 0; n < M * N; ++n) {
        const Real left = a[n / N](far, k);
        for (int e = 0; e < 2; ++e) d[n][e] = mul_add(left, b(k, n % N * 8 + 2 * near + e), d[n][e]);
      }
    }
  }
}

/// Of the B x B blocks of x^T x, those (first, first + i) for i < B - first and (last, i - 1) for i from there to B,
/// where last = B - 1 - first: the upper triangle's part of two rows of blocks, B + 1 blocks for any first < B / 2.
/// x: [depth, 8 B]. A lane's element of a block is the same whether the block is the left factor or the right.
template <int B, class Real>
__device__ inline void multiply_triangle(Real (&d)[B + 1][2], Strided<Real> x, int first, int depth) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int far = lane / 4, near = lane % 4;
  const int last = B - 1 - first;
  if constexpr (std::is_same_v<Real, double>) {
#pragma unroll 1
    for (int k = 0; k < depth; k += 4) {
      const double upper = x(k + near, 8 * first + far), lower = x(k + near, 8 * last + far);
#pragma unroll
      for (int i = 0; i <= B; ++i) {
        const int column = i < B - first ? first + i : i - 1;
        mma_f64(d[i], i < B - first ? upper : lower, x(k + near, 8 * column + far));
      }
    }
  } else {
#pragma unroll 1
    for (int k = 0; k < depth; ++k) {
#pragma unroll
      for (int i = 0; i <= B; ++i) {
        const int row = i < B - first ? first : last, column = i < B - first ? first + i : i - 1;
        const Real left = x(k, 8 * row + far);
        for (int e = 0; e < 2; ++e) d[i][e] = mul_add(left, x(k, 8 * column + 2 * near + e), d[i][e]);
      }
    }
  }
}

}  // namespace lomu::cuda

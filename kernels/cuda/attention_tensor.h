// Pieces of the tensor-core attention kernels: tiles of rows in shared memory and the two products that a warp makes
// with them. For .cu files only.
//
// A tile is [rows, kDim] bf16 with kPitch elements from row to row: 16 bytes more than a row, so that the eight rows
// which one ldmatrix phase reads lie in different banks, and all offsets within a tile are constants of the
// instruction. A warp owns 16 rows (or 32) of the output and keeps them in registers. It multiplies them with a whole
// tile, gets scores whose register layout is at once that of the left operand of the next product (f32 pairs packed to
// bf16), and so never sends probabilities through shared memory.
#pragma once

#include "kernels/cuda/gpu.h"

namespace lomu::cuda {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kWarpRows = 16;  ///< rows of one mma
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr unsigned kAllLanes = ~0u;

template <int kDim>
constexpr int kPitch = kDim + 8;

/// Accumulator of 16 rows and kCols columns: element e of [n] is row lane / 4 + e / 2 * 8, column 8 n + 2 (lane % 4) +
/// e % 2.
template <int kCols>
using Accumulator = float[kCols / 8][4];
/// 16 rows of kCols columns as left operands.
template <int kCols>
using LeftOperand = std::uint32_t[kCols / 16][4];

/// The number of this thread's warp, in a form that tells the compiler that all its lanes agree.
__device__ inline int warp_index() {
  return __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x / 32), 0);
}
__device__ inline int lane_index() {
  return static_cast<int>(threadIdx.x % 32);
}

/// Where in a tile this lane's row of an ldmatrix begins, for 16 rows x 16 columns. The same for all uses: the four
/// matrices are rows 0-7 and 8-15 of columns 0-7, then of columns 8-15.
template <int kDim>
__device__ int lane_offset() {
  return static_cast<int>(threadIdx.x % 16) * kPitch<kDim> + static_cast<int>(threadIdx.x % 32 / 16) * 8;
}

/// Copies rows of a matrix into tiles, from one row on and onwards. A row is given to 8 or 16 threads, of which the
/// last may idle: then a thread's copies lie a constant distance apart, and all of its addresses cost two registers.
template <int kDim>
class RowStream {
 public:
  __device__ RowStream(const gpu::bf16* from, std::int64_t ld) : source_(from + thread_row() * ld + thread_col()) {}

  /// Starts copying the next kRows rows. Rows from `rows` on and columns from `head_dim` on become zeros.
  template <int kRows>
  __device__ void fetch(gpu::bf16* tile, std::int64_t ld, int rows, int head_dim) {
    static_assert(kRows % kStep == 0);
    if (thread_col() >= kDim) return;
    gpu::bf16* to = tile + thread_row() * kPitch<kDim> + thread_col();
    const int left = thread_col() < head_dim ? rows - thread_row() : 0;
#pragma unroll
    for (int i = 0; i < kRows; i += kStep) {
      gpu::copy_async16(to + i * kPitch<kDim>, source_, i < left);
      source_ += kStep * ld;
    }
  }

 private:
  static constexpr int kThreadsOfRow = kDim <= 64 ? 8 : 16, kStep = kThreads / kThreadsOfRow;
  __device__ static int thread_row() {
    return static_cast<int>(threadIdx.x / kThreadsOfRow);
  }
  __device__ static int thread_col() {
    return static_cast<int>(threadIdx.x % kThreadsOfRow) * 8;
  }

  const gpu::bf16* source_;  ///< of this thread; may lie past the end, where nothing is read
};

/// 16 rows of a tile, from `rows` on, as left operands. In this and the next two the lane's offset is added already.
template <int kDim>
__device__ inline void load_left(LeftOperand<kDim>& a, const gpu::bf16* rows) {
#pragma unroll
  for (int s = 0; s < kDim / 16; ++s) gpu::load_matrix_x4<false>(a[s], rows + s * 16);
}

/// x [16, kRows] += a [16, kDim] tile^T.
template <int kDim, int kRows>
__device__ inline void multiply_transposed(Accumulator<kRows>& x, const LeftOperand<kDim>& a, const gpu::bf16* tile) {
#pragma unroll
  for (int s = 0; s < kDim / 16; ++s) {
#pragma unroll
    for (int n = 0; n < kRows / 8; n += 2) {
      std::uint32_t b[4];
      gpu::load_matrix_x4<false>(b, tile + n * 8 * kPitch<kDim> + s * 16);
      gpu::mma_bf16(x[n], a[s], b[0], b[2]);
      gpu::mma_bf16(x[n + 1], a[s], b[1], b[3]);
    }
  }
}

/// x [16, kDim] += a [16, kRows] tile.
template <int kDim, int kRows>
__device__ inline void multiply(Accumulator<kDim>& x, const LeftOperand<kRows>& a, const gpu::bf16* tile) {
#pragma unroll
  for (int s = 0; s < kRows / 16; ++s) {
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      std::uint32_t b[4];
      gpu::load_matrix_x4<true>(b, tile + s * 16 * kPitch<kDim> + n * 8);
      gpu::mma_bf16(x[n], a[s], b[0], b[1]);
      gpu::mma_bf16(x[n + 1], a[s], b[2], b[3]);
    }
  }
}

/// An accumulator, rounded to bf16, as the left operand of the next product: the layouts agree lane by lane.
template <int kCols>
__device__ inline void to_left(LeftOperand<kCols>& a, const Accumulator<kCols>& x) {
#pragma unroll
  for (int s = 0; s < kCols / 16; ++s) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[s][i] = gpu::pack_bf16(x[2 * s + i / 2][i % 2 * 2], x[2 * s + i / 2][i % 2 * 2 + 1]);
    }
  }
}

/// Writes factor[h] x, h = 0 for rows lane / 4 and 1 for those + 8, as up to `rows` rows of `to`. It goes through 16
/// rows of shared memory that only this warp uses (`staging`), so that stores are 16 bytes in whole lines.
template <int kDim>
__device__ inline void store_rows(gpu::bf16* to, std::int64_t ld, int rows, int head_dim, const Accumulator<kDim>& x,
                                  float factor0, float factor1, gpu::bf16* staging) {
  const int lane = lane_index();
  gpu::bf16* own = staging + lane / 4 * kPitch<kDim> + lane % 4 * 2;
  __syncwarp();  // all lanes have read what was there
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    *reinterpret_cast<std::uint32_t*>(own + n * 8) = gpu::pack_bf16(x[n][0] * factor0, x[n][1] * factor0);
    *reinterpret_cast<std::uint32_t*>(own + 8 * kPitch<kDim> + n * 8) =
        gpu::pack_bf16(x[n][2] * factor1, x[n][3] * factor1);
  }
  __syncwarp();
  constexpr int kPieces = kDim / 8;
#pragma unroll
  for (int i = 0; i < kWarpRows * kPieces / 32; ++i) {
    const int piece = lane + i * 32, row = piece / kPieces, col = piece % kPieces * 8;
    if (row < rows && col < head_dim) {
      gpu::store16(to + row * ld + col, gpu::load16(staging + row * kPitch<kDim> + col));
    }
  }
}

/// Calls f(std::integral_constant<int, kDim>) with the smallest compiled head size that holds `head_dim`.
template <class F>
void with_dim(int head_dim, F f) {
  if (head_dim <= 64) return f(std::integral_constant<int, 64>{});
  if (head_dim <= 80) return f(std::integral_constant<int, 80>{});
  if (head_dim <= 96) return f(std::integral_constant<int, 96>{});
  f(std::integral_constant<int, 128>{});
}

}  // namespace lomu::cuda

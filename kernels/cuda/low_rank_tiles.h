// What the kernels of low_rank.h share: tiles in shared memory, the plan of slots, and the product of floats. For .cu
// files only.
#pragma once

#include "kernels/cuda/row_access.h"

namespace lomu::cuda {

constexpr int kTile = 64;  // columns of a block's wide side; the most ranks that a block takes

/// One operand of a tile loader: [rows, cols] with rows, or columns, beyond these read as zeros.
struct TileSource {
  DeviceRows<const gpu::bf16> matrix;
  int cols;
  bool wide;  ///< 16-byte accesses reach every row, and no piece of eight crosses its end

  TileSource(DeviceRows<const gpu::bf16> m, std::int64_t c)
      : matrix(m), cols(static_cast<int>(c)), wide(are_wide(m) && c % kPiece == 0) {}
};

/// Starts copying kRows x kCols from (row0, col0), rows below `rows`, into a tile of kCols + 8 elements a row: the
/// eight rows of an ldmatrix then lie in different banks. Visible after copy_async_wait and a barrier.
template <int kRows, int kCols, int kThreads>
__device__ inline void fetch_tile(gpu::bf16* tile, const TileSource& from, std::int64_t row0, std::int64_t rows,
                                  int col0) {
  constexpr int kPieces = kCols / kPiece;
  static_assert(kRows * kPieces % kThreads == 0 || kRows * kPieces < kThreads);
#pragma unroll
  for (int i = 0; i < gpu::ceil_div(kRows * kPieces, kThreads); ++i) {
    const int piece = static_cast<int>(threadIdx.x) + i * kThreads;
    if (kRows * kPieces < kThreads && piece >= kRows * kPieces) break;
    const std::int64_t row = row0 + piece / kPieces;
    const int col = col0 + piece % kPieces * kPiece;
    gpu::bf16* to = tile + piece / kPieces * (kCols + 8) + piece % kPieces * kPiece;
    const gpu::bf16* source = from.matrix.data + row * from.matrix.ld + col;
    if (from.wide) {
      const bool valid = row < rows && col < from.cols;
      gpu::copy_async16(to, valid ? source : from.matrix.data, valid);
    } else {
#pragma unroll
      for (int e = 0; e < kPiece; ++e) {
        to[e] = row < rows && col + e < from.cols ? source[e] : gpu::from_float<gpu::bf16>(0.0f);
      }
    }
  }
}

/// Bytes of one such tile.
constexpr std::size_t tile_bytes(int rows, int cols) {
  return gpu::SharedArena::bytes<gpu::bf16>(rows * (cols + 8));
}

/// Calls f(std::integral_constant<int, ranks>) with the narrowest tile that holds `rank`, or the widest.
template <class F>
void with_rank_tile(std::int64_t rank, F f) {
  if (rank <= 16) return f(std::integral_constant<int, 16>());
  if (rank <= 32) return f(std::integral_constant<int, 32>());
  f(std::integral_constant<int, kTile>());
}

/// How a sum over tokens is cut. By shape alone, never by the device: the same bits everywhere.
struct SlotPlan {
  std::int64_t slots = 1, tokens_per_slot = 0;

  /// Enough slots for about two blocks on each of a large device's processors, none of them with less than 256 tokens
  /// of work, at most 16.
  SlotPlan(std::int64_t tokens, std::int64_t m, std::int64_t n) {
    constexpr std::int64_t kBlocks = 256, kFewestTokens = 256, kMostSlots = 16, kStep = 32;
    const std::int64_t tiles = gpu::ceil_div(m, kTile) * gpu::ceil_div(n, kTile);
    const std::int64_t wanted = gpu::ceil_div(kBlocks, tiles), most = gpu::ceil_div(tokens, kFewestTokens);
    slots = wanted < most ? wanted : most;
    slots = slots < kMostSlots ? slots : kMostSlots;
    if (slots < 1) slots = 1;
    tokens_per_slot = gpu::ceil_div(gpu::ceil_div(tokens, slots), kStep) * kStep;
    if (tokens_per_slot > 0) slots = gpu::ceil_div(tokens, tokens_per_slot);
  }
};

/// A matrix by its element (i, k): data[i * row + k * depth]; one of the two strides is 1.
struct FloatOperand {
  const float* data;
  std::int64_t row, depth;
};

/// c_s[i][j] = scale * sum over slot s of a(i, k) b(j, k), for each of the slots of k. c_s: [m, n] with ld, and
/// c_{s+1} = c_s + slot_stride. slots [1, 65535]; depth_per_slot * slots >= depth.
void float_product(FloatOperand a, FloatOperand b, float scale, DeviceRows<float> c, std::int64_t slot_stride,
                   std::int64_t m, std::int64_t n, std::int64_t depth, std::int64_t slots, std::int64_t depth_per_slot,
                   Stream stream);

}  // namespace lomu::cuda

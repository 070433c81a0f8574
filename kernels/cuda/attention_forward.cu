// Attention forward in bf16 on tensor cores.
//
// A block of 4 warps owns 128 queries of one head, a warp 32 of them; keys and values stream by in tiles through two
// buffers: while one is used, the next arrives, one barrier a tile.
//
// Bound: each 512 bytes of a right operand read from shared memory feed 4 mma. With the queries, which are read anew
// for every tile, shared memory needs 75 % of the time of an A100's tensor cores at head size 128 (63 % below, where
// tiles are twice as long), and about as long as an H100's mma.sync, whose rate is some 62 % of its peak. Two blocks a
// multiprocessor, by registers; at head size 128 70 KB of shared memory each. The exponentials, 16 a clock, take a
// quarter of the mma's time beside them. Generation with few queries a sequence leaves warps idle and is bound by
// reading keys and values once for every query head, all but the first of a group from L2.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_tensor.h"

namespace lomu::cuda {
namespace {

using gpu::bf16;
using gpu::SharedArena;

constexpr int kQueries = attention_blocks(AttentionPath::kTensorCores).forward;
constexpr int kParts = kQueries / (kWarps * kWarpRows);  // of 16 rows, in each warp
/// Keys of a tile; fewer where the output takes half of the registers.
template <int kDim>
constexpr int kKeys = kDim <= 96 ? 64 : 32;

/// Softmax of a row so far, for the two rows of which a lane holds columns. In units of log 2.
struct RunningSoftmax {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  ///< this lane's columns only

  /// Scores become weights relative to the new maximum, and `x` is scaled to it. A row that has seen nothing stays so.
  template <int kDim, int kCols>
  __device__ void update(Accumulator<kCols>& scores, Accumulator<kDim>& x, float scale_log2) {
    float shrink[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = -INFINITY;
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n) largest = fmaxf(largest, fmaxf(scores[n][2 * h], scores[n][2 * h + 1]));
      for (int d = 1; d <= 2; d *= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, d));
      largest = fmaxf(max[h], largest * scale_log2);  // the scale is positive, so -inf stays
      const float finite = largest == -INFINITY ? 0.0f : largest;
      shrink[h] = gpu::exp2_approx(max[h] - finite);
      max[h] = largest;
      float total = sum[h] * shrink[h];
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n) {
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; ++e) {
          scores[n][e] = gpu::exp2_approx(scores[n][e] * scale_log2 - finite);
          total += scores[n][e];
        }
      }
      sum[h] = total;
    }
    // After the first tiles maxima seldom change. Leaving out products with 1 changes no bit.
    if (__any_sync(kAllLanes, shrink[0] != 1 || shrink[1] != 1) == 0) return;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) x[n][e] *= shrink[e / 2];
    }
  }
};

template <int kDim>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(AttentionArguments<bf16> a) {
  constexpr int kTile = kKeys<kDim>, kTileElements = kTile * kPitch<kDim>;
  const AttentionTile tile = a.tiles[blockIdx.y];
  const int head = static_cast<int>(blockIdx.x), kv_head = head / a.group;
  const int warp_row = warp_index() * kParts * kWarpRows, lane = lane_index();
  SharedArena shared;
  bf16* queries = shared.take<bf16>(kQueries * kPitch<kDim>);
  bf16* buffers = shared.take<bf16>(4 * kTileElements);  // [2 buffers][keys, values]
  const int lane_at = lane_offset<kDim>();

  // Positions count from the sequence's first key. In a gap of the batch they are negative and there are no tiles.
  const int rows = smaller(kQueries, tile.query_length - tile.first);
  const int position = tile.key_length - tile.query_length + tile.first;
  const int keys_end = position + rows;
  const int keys_begin = a.window > 0 ? larger(0, position - a.window + 1) / kTile * kTile : 0;
  const std::int64_t first_row = tile.query_begin + tile.first, first_key = tile.key_begin + keys_begin;
  const std::int64_t column = static_cast<std::int64_t>(head) * a.head_dim;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * a.head_dim;
  RowStream<kDim> key_stream(a.k + first_key * a.k_ld + kv_column, a.k_ld);
  RowStream<kDim> value_stream(a.v + first_key * a.v_ld + kv_column, a.v_ld);
  const auto fetch = [&](int key, int buffer) {
    bf16* to = buffers + buffer * 2 * kTileElements;
    key_stream.template fetch<kTile>(to, a.k_ld, keys_end - key, a.head_dim);
    value_stream.template fetch<kTile>(to + kTileElements, a.v_ld, keys_end - key, a.head_dim);
    gpu::copy_async_commit();
  };
  if (keys_begin < keys_end) {
    RowStream<kDim>(a.q + first_row * a.q_ld + column, a.q_ld)
        .template fetch<kQueries>(queries, a.q_ld, rows, a.head_dim);
    fetch(keys_begin, 0);
  }

  Accumulator<kDim> x[kParts] = {};
  RunningSoftmax softmax[kParts];
  for (int key = keys_begin, buffer = 0; key < keys_end; key += kTile, buffer ^= 1) {
    gpu::copy_async_wait<0>();
    __syncthreads();  // this tile is here, and everyone is done with the other buffer
    if (key + kTile < keys_end) fetch(key + kTile, buffer ^ 1);
    const int warp_position = position + warp_row;
    if (warp_row >= rows || !any_sees(warp_position, kParts * kWarpRows, key, kTile, a.window)) continue;
    const bf16* keys = buffers + buffer * 2 * kTileElements;
    const bf16* values = keys + kTileElements;

    // 1. scores = queries keys^T
    Accumulator<kTile> scores[kParts] = {};
#pragma unroll
    for (int s = 0; s < kDim / 16; ++s) {
      std::uint32_t left[kParts][4];
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const bf16* own = queries + (warp_row + part * kWarpRows) * kPitch<kDim> + lane_at;
        gpu::load_matrix_x4<false>(left[part], own + s * 16);
      }
#pragma unroll
      for (int n = 0; n < kTile / 8; n += 2) {
        std::uint32_t b[4];
        gpu::load_matrix_x4<false>(b, keys + n * 8 * kPitch<kDim> + s * 16 + lane_at);
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          gpu::mma_bf16(scores[part][n], left[part], b[0], b[2]);
          gpu::mma_bf16(scores[part][n + 1], left[part], b[1], b[3]);
        }
      }
    }

    // 2. mask, where the tile is at the diagonal or the window's edge
    if (!all_see(warp_position, kParts * kWarpRows, key, kTile, a.window)) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int own_position = warp_position + part * kWarpRows + lane / 4 + e / 2 * 8;
            if (!sees(own_position, key + n * 8 + lane % 4 * 2 + e % 2, a.window)) scores[part][n][e] = -INFINITY;
          }
        }
      }
    }

    // 3. weights
    LeftOperand<kTile> weights[kParts];
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      softmax[part].update<kDim, kTile>(scores[part], x[part], a.scale * kLog2E);
      to_left<kTile>(weights[part], scores[part]);
    }

    // 4. x += weights values
#pragma unroll
    for (int s = 0; s < kTile / 16; ++s) {
#pragma unroll
      for (int n = 0; n < kDim / 8; n += 2) {
        std::uint32_t b[4];
        gpu::load_matrix_x4<true>(b, values + s * 16 * kPitch<kDim> + n * 8 + lane_at);
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          gpu::mma_bf16(x[part][n], weights[part][s], b[0], b[1]);
          gpu::mma_bf16(x[part][n + 1], weights[part][s], b[2], b[3]);
        }
      }
    }
  }

#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int row = warp_row + part * kWarpRows;
    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = softmax[part].sum[h];
      for (int d = 1; d <= 2; d *= 2) sum += __shfl_xor_sync(kAllLanes, sum, d);
      inverse[h] = sum == 0 ? 0.0f : 1 / sum;  // 0 only in gaps; a NaN stays one
      const int lane_row = row + lane / 4 + h * 8;
      if (a.lse != nullptr && lane % 4 == 0 && lane_row < rows) {
        const float lse = sum == 0 ? 0.0f : (softmax[part].max[h] + log2f(sum)) * kLn2;
        a.lse[(first_row + lane_row) * a.lse_ld + head] = lse;
      }
    }
    store_rows<kDim>(a.out + (first_row + row) * a.out_ld + column, a.out_ld, rows - row, a.head_dim, x[part],
                     inverse[0], inverse[1], queries + row * kPitch<kDim>);
  }
}

}  // namespace

void tensor_attention(const AttentionArguments<bf16>& a, std::size_t count, Stream stream) {
  with_dim(a.head_dim, [&](auto dim) {
    constexpr int kDim = dim();
    constexpr std::size_t kBytes =
        SharedArena::bytes<bf16>(kQueries * kPitch<kDim>) + SharedArena::bytes<bf16>(4 * kKeys<kDim> * kPitch<kDim>);
    launch_tiles(forward_kernel<kDim>, a, a.heads, count, kThreads, kBytes, stream);
  });
}

}  // namespace lomu::cuda

// Attention backward in bf16 on tensor cores: one kernel for dk and dv, one for dq, mirror images of each other.
//
//   p = exp(scale q k^T - lse), g = dout v^T, ds = p (g - delta);  dv = p^T dout, dk = scale ds^T q, dq = scale ds k.
//
// A warp owns 16 rows (keys, or queries), holds both of their operands in registers, and takes the other side's rows
// from tiles that stream through two buffers of shared memory: while one is used, the next arrives, one barrier a tile.
// Scores are computed with the own rows first (transposed in the kernel for dk and dv), so that p and ds are left
// operands of the second products as they stand in registers. The query heads of a group follow one another in the same
// block, so their sum in dk and dv has a fixed order.
//
// Bound: 512 bytes of a right operand from shared memory feed only 2 mma, as a warp has no registers for more than 16
// rows of both dk and dv. That is level with an A100's tensor cores (4 clocks each) and limits an H100's mma.sync to
// about 70 %. Two blocks of 4 warps a multiprocessor, by registers, and three for dq at head size 64. For each streamed
// row a block reads 4 bytes a feature, mostly from L2, and makes 512 (for dq 384) operations with them.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_tensor.h"

namespace lomu::cuda {
namespace {

using gpu::bf16;
using gpu::SharedArena;

constexpr int kOwnRows = kWarps * kWarpRows;
static_assert(attention_blocks(AttentionPath::kTensorCores).queries == kOwnRows);
static_assert(attention_blocks(AttentionPath::kTensorCores).keys == kOwnRows);

constexpr int kTile = 64;  // rows of a streamed tile
/// Rows of a tile whose scores and their gradients are in registers at a time; as the left operands are there too, a
/// small number costs no traffic, only independent work between the mma.
template <int kDim>
constexpr int kQueryStep = kDim <= 96 ? 32 : 16;
constexpr int kKeyStep = 32;

/// The streaming buffers, two of two tiles. At first they hold the block's own rows of two matrices.
template <int kDim>
constexpr int kTileElements{kTile * kPitch<kDim>};
static_assert(kTile >= kOwnRows);

/// The block's own rows of two matrices, through the streaming buffers into registers.
template <int kDim>
__device__ inline void load_own(LeftOperand<kDim>& first, LeftOperand<kDim>& second, const bf16* from_first,
                                std::int64_t ld_first, const bf16* from_second, std::int64_t ld_second, int rows,
                                int head_dim, bf16* buffer, int lane_offset) {
  RowStream<kDim>(from_first, ld_first).template fetch<kOwnRows>(buffer, ld_first, rows, head_dim);
  RowStream<kDim>(from_second, ld_second)
      .template fetch<kOwnRows>(buffer + kOwnRows * kPitch<kDim>, ld_second, rows, head_dim);
  gpu::copy_async_commit();
  gpu::copy_async_wait<0>();
  __syncthreads();
  const bf16* own = buffer + warp_index() * kWarpRows * kPitch<kDim> + lane_offset;
  load_left<kDim>(first, own);
  load_left<kDim>(second, own + kOwnRows * kPitch<kDim>);
  __syncthreads();  // the buffers are free
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 2) keys_backward_kernel(AttentionArguments<bf16> a) {
  constexpr int kStep = kQueryStep<kDim>;
  const AttentionTile tile = a.tiles[blockIdx.y];
  const int kv_head = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x), warp = warp_index(), lane = lane_index();
  SharedArena shared;
  bf16* buffers = shared.take<bf16>(4 * kTileElements<kDim>);  // [2 buffers][queries, dout]
  RowStatistics* statistics = shared.take<RowStatistics>(2 * kTile);
  const int lane_at = lane_offset<kDim>();

  const int rows = smaller(kOwnRows, tile.key_length - tile.first);
  const std::int64_t first_row = tile.key_begin + tile.first;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * a.head_dim;
  LeftOperand<kDim> keys, values;
  load_own<kDim>(keys, values, a.k + first_row * a.k_ld + kv_column, a.k_ld, a.v + first_row * a.v_ld + kv_column,
                 a.v_ld, rows, a.head_dim, buffers, lane_at);

  // The queries that see any of these keys, for one head of the group after another. Counted in rows of q; `own_key` is
  // the row of the query at the position of the warp's first key.
  const int begin = tile.query_begin + tile.first, own_key = begin + warp * kWarpRows;
  int end = tile.query_begin + tile.query_length;
  if (a.window > 0) end = smaller(end, begin + kOwnRows - 1 + a.window);
  const int heads_end = end > begin ? (kv_head + 1) * a.group : 0;  // a gap of the batch has none
  const auto fetch = [&](int head, int query, int buffer) {
    const std::int64_t row = query, column = static_cast<std::int64_t>(head) * a.head_dim;
    bf16* to = buffers + buffer * 2 * kTileElements<kDim>;
    RowStream<kDim>(a.q + row * a.q_ld + column, a.q_ld).template fetch<kTile>(to, a.q_ld, end - query, a.head_dim);
    RowStream<kDim>(a.dout + row * a.dout_ld + column, a.dout_ld)
        .template fetch<kTile>(to + kTileElements<kDim>, a.dout_ld, end - query, a.head_dim);
    gpu::copy_async_commit();
    // These are too narrow for cp.async: they wait in a register of the first threads. A query past the end gets an
    // infinite sum, hence weights of 0.
    RowStatistics own{INFINITY, 0};
    if (thread < kTile && query + thread < end) own = a.statistics[head * a.query_rows + row + thread];
    return own;
  };
  int head = kv_head * a.group, query = begin, buffer = 0;
  RowStatistics next{};
  if (head < heads_end) next = fetch(head, query, 0);

  const float scale_log2 = a.scale * kLog2E;
  Accumulator<kDim> dk = {}, dv = {};
  while (head < heads_end) {
    RowStatistics* of_tile = statistics + buffer * kTile;
    if (thread < kTile) of_tile[thread] = next;
    gpu::copy_async_wait<0>();
    __syncthreads();  // this tile is here, and everyone is done with the other buffer
    const int first_query = query;
    const bf16* queries = buffers + buffer * 2 * kTileElements<kDim>;
    const bf16* douts = queries + kTileElements<kDim>;
    query += kTile;
    buffer ^= 1;
    if (query >= end) {
      query = begin;
      ++head;
    }
    if (head < heads_end) next = fetch(head, query, buffer);

#pragma unroll 1
    for (int step = 0; step < kTile; step += kStep) {
      if (!any_sees(first_query + step, kStep, own_key, kWarpRows, a.window)) continue;
      const bf16* own_queries = queries + step * kPitch<kDim>;
      const bf16* own_douts = douts + step * kPitch<kDim>;
      Accumulator<kStep> p = {}, ds = {};
      multiply_transposed<kDim, kStep>(p, keys, own_queries + lane_at);
      multiply_transposed<kDim, kStep>(ds, values, own_douts + lane_at);
      const bool test = !all_see(first_query + step, kStep, own_key, kWarpRows, a.window);
#pragma unroll
      for (int n = 0; n < kStep / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = step + n * 8 + lane % 4 * 2 + e % 2;
          const RowStatistics of_query = of_tile[column];
          p[n][e] = gpu::exp2_approx(p[n][e] * scale_log2 - of_query.lse);
          if (test && !sees(first_query + column, own_key + lane / 4 + e / 2 * 8, a.window)) p[n][e] = 0;
          ds[n][e] = p[n][e] * (ds[n][e] - of_query.delta);
        }
      }
      LeftOperand<kStep> left;
      to_left<kStep>(left, p);
      multiply<kDim, kStep>(dv, left, own_douts + lane_at);
      to_left<kStep>(left, ds);
      multiply<kDim, kStep>(dk, left, own_queries + lane_at);
    }
  }

  __syncthreads();                                  // the buffers are free
  const AttentionTile again = a.tiles[blockIdx.y];  // read anew: through the loop it would take registers
  const int row = warp * kWarpRows, left_rows = again.key_length - again.first - row;
  const std::int64_t to_row = again.key_begin + again.first + row;
  const std::int64_t to_column = static_cast<std::int64_t>(blockIdx.x) * a.head_dim;
  bf16* staging = buffers + row * kPitch<kDim>;
  store_rows<kDim>(a.dk + to_row * a.dk_ld + to_column, a.dk_ld, left_rows, a.head_dim, dk, a.scale, a.scale, staging);
  store_rows<kDim>(a.dv + to_row * a.dv_ld + to_column, a.dv_ld, left_rows, a.head_dim, dv, 1, 1, staging);
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, kDim <= 64 ? 3 : 2) queries_backward_kernel(AttentionArguments<bf16> a) {
  const AttentionTile tile = a.tiles[blockIdx.y];
  const int head = static_cast<int>(blockIdx.x), kv_head = head / a.group;
  const int warp = warp_index(), lane = lane_index();
  SharedArena shared;
  bf16* buffers = shared.take<bf16>(4 * kTileElements<kDim>);  // [2 buffers][keys, values]
  const int lane_at = lane_offset<kDim>();

  const int rows = smaller(kOwnRows, tile.query_length - tile.first);
  const int position = tile.key_length - tile.query_length + tile.first;
  const std::int64_t first_row = tile.query_begin + tile.first;
  const std::int64_t column = static_cast<std::int64_t>(head) * a.head_dim;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * a.head_dim;
  LeftOperand<kDim> queries, douts;
  load_own<kDim>(queries, douts, a.q + first_row * a.q_ld + column, a.q_ld, a.dout + first_row * a.dout_ld + column,
                 a.dout_ld, rows, a.head_dim, buffers, lane_at);
  RowStatistics statistics[2] = {{INFINITY, 0}, {INFINITY, 0}};  // weights of 0 for rows past the end
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = warp * kWarpRows + lane / 4 + h * 8;
    if (row < rows) statistics[h] = a.statistics[head * a.query_rows + first_row + row];
  }

  const int keys_end = position + rows;
  const int keys_begin = a.window > 0 ? larger(0, position - a.window + 1) / kTile * kTile : 0;
  const std::int64_t first_key = tile.key_begin + keys_begin;
  RowStream<kDim> key_stream(a.k + first_key * a.k_ld + kv_column, a.k_ld);
  RowStream<kDim> value_stream(a.v + first_key * a.v_ld + kv_column, a.v_ld);
  const auto fetch = [&](int key, int buffer) {
    bf16* to = buffers + buffer * 2 * kTileElements<kDim>;
    key_stream.template fetch<kTile>(to, a.k_ld, keys_end - key, a.head_dim);
    value_stream.template fetch<kTile>(to + kTileElements<kDim>, a.v_ld, keys_end - key, a.head_dim);
    gpu::copy_async_commit();
  };
  if (keys_begin < keys_end) fetch(keys_begin, 0);

  const float scale_log2 = a.scale * kLog2E;
  Accumulator<kDim> dq = {};
  for (int first_key_of_tile = keys_begin, buffer = 0; first_key_of_tile < keys_end;
       first_key_of_tile += kTile, buffer ^= 1) {
    gpu::copy_async_wait<0>();
    __syncthreads();  // this tile is here, and everyone is done with the other buffer
    if (first_key_of_tile + kTile < keys_end) fetch(first_key_of_tile + kTile, buffer ^ 1);

    const int warp_position = position + warp * kWarpRows;
    const bf16* tiles = buffers + buffer * 2 * kTileElements<kDim>;
#pragma unroll 1
    for (int step = 0; step < kTile; step += kKeyStep) {
      const int key = first_key_of_tile + step;
      if (!any_sees(warp_position, kWarpRows, key, kKeyStep, a.window)) continue;
      const bf16* keys = tiles + step * kPitch<kDim>;
      const bf16* values = keys + kTileElements<kDim>;
      Accumulator<kKeyStep> p = {}, ds = {};
      multiply_transposed<kDim, kKeyStep>(p, queries, keys + lane_at);
      multiply_transposed<kDim, kKeyStep>(ds, douts, values + lane_at);
      const bool test = !all_see(warp_position, kWarpRows, key, kKeyStep, a.window);
#pragma unroll
      for (int n = 0; n < kKeyStep / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const RowStatistics& of_row = statistics[e / 2];
          float weight = gpu::exp2_approx(p[n][e] * scale_log2 - of_row.lse);
          const int own_key = key + n * 8 + lane % 4 * 2 + e % 2;
          if (test && !sees(warp_position + lane / 4 + e / 2 * 8, own_key, a.window)) weight = 0;
          ds[n][e] = weight * (ds[n][e] - of_row.delta);
        }
      }
      LeftOperand<kKeyStep> left;
      to_left<kKeyStep>(left, ds);
      multiply<kDim, kKeyStep>(dq, left, keys + lane_at);
    }
  }

  __syncthreads();  // the buffers are free
  const int row = warp * kWarpRows;
  store_rows<kDim>(a.dq + (first_row + row) * a.dq_ld + column, a.dq_ld, rows - row, a.head_dim, dq, a.scale, a.scale,
                   buffers + row * kPitch<kDim>);
}

}  // namespace

void tensor_attention_keys_backward(const AttentionArguments<bf16>& a, std::size_t count, Stream stream) {
  with_dim(a.head_dim, [&](auto dim) {
    constexpr int kDim = dim();
    constexpr std::size_t kBytes =
        SharedArena::bytes<bf16>(4 * kTileElements<kDim>) + SharedArena::bytes<RowStatistics>(2 * kTile);
    launch_tiles(keys_backward_kernel<kDim>, a, a.heads / a.group, count, kThreads, kBytes, stream);
  });
}

void tensor_attention_queries_backward(const AttentionArguments<bf16>& a, std::size_t count, Stream stream) {
  with_dim(a.head_dim, [&](auto dim) {
    constexpr int kDim = dim();
    constexpr std::size_t kBytes = SharedArena::bytes<bf16>(4 * kTileElements<kDim>);
    launch_tiles(queries_backward_kernel<kDim>, a, a.heads, count, kThreads, kBytes, stream);
  });
}

}  // namespace lomu::cuda

// Attention in float32 arithmetic for any head size up to 256, float or bf16 in memory: exact rather than fast.
//
// A block of 128 threads owns 32 rows, four neighbouring lanes each; the other side's rows come in tiles of 32 through
// shared memory, as floats and padded with zeros to kDim. Of its row a lane computes every fourth score and every
// fourth group of four features. The scores go through shared memory, but only among the four lanes: no barrier of the
// block.
//
// Bound: 9 loads of 16 bytes from shared memory for 32 multiply-adds, so about a third of the float32 rate. Copies are
// not overlapped with arithmetic.
#include "kernels/cuda/attention_kernels.h"

namespace lomu::cuda {
namespace {

using gpu::SharedArena;

constexpr int kRows = attention_blocks(AttentionPath::kPlain).forward;  // of a block, and of a tile
static_assert(attention_blocks(AttentionPath::kPlain).queries == kRows);
static_assert(attention_blocks(AttentionPath::kPlain).keys == kRows);
constexpr int kLanesOfRow = 4;
constexpr int kThreads = kRows * kLanesOfRow;
constexpr int kScoresOfLane = kRows / kLanesOfRow;  ///< columns lane, lane + 4, ...
constexpr int kScorePitch = kRows + 4;
constexpr unsigned kAllLanes = ~0u;

/// Floats from row to row of a tile: rows that are read together lie in different banks.
template <int kDim>
constexpr int kPitch = kDim + 4;
/// Groups of four features that a lane has of its row: lane, lane + 4, ...
template <int kDim>
constexpr int kGroups = kDim / (4 * kLanesOfRow);

struct alignas(16) Four {
  float x[4];
};
__device__ inline Four load4(const float* p) {
  const gpu::Vec16 v = gpu::load16(p);
  Four f;
  for (int i = 0; i < 4; ++i) f.x[i] = __uint_as_float(v.word[i]);
  return f;
}

/// tile [kRows, kDim] = rows of a matrix; rows from `rows` on and columns from `head_dim` on are zeros. All threads.
template <class T, int kDim>
__device__ void load_tile(float* tile, const T* from, std::int64_t ld, int rows, int head_dim) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kDim; i += kThreads) {
    const int row = i / kDim, col = i % kDim;
    tile[row * kPitch<kDim> + col] = row < rows && col < head_dim ? gpu::to_float(from[row * ld + col]) : 0.0f;
  }
}

/// Products of the lane's row with rows lane, lane + 4, ... of `tile`.
template <int kDim>
__device__ void multiply_transposed(float (&x)[kScoresOfLane], const float* own_row, const float* tile, int lane) {
  for (float& value : x) value = 0;
  for (int d = 0; d < kDim; d += 4) {
    const Four a = load4(own_row + d);
#pragma unroll
    for (int j = 0; j < kScoresOfLane; ++j) {
      const Four b = load4(tile + (lane + kLanesOfRow * j) * kPitch<kDim> + d);
#pragma unroll
      for (int i = 0; i < 4; ++i) x[j] = fmaf(a.x[i], b.x[i], x[j]);
    }
  }
}

/// x += scores tile, for the lane's features; `scores` is the row of all kRows scores.
template <int kDim>
__device__ void multiply(float (&x)[kGroups<kDim>][4], const float* scores, const float* tile, int lane) {
  for (int j = 0; j < kRows; ++j) {
    const float score = scores[j];
#pragma unroll
    for (int g = 0; g < kGroups<kDim>; ++g) {
      const Four b = load4(tile + j * kPitch<kDim> + 4 * (lane + kLanesOfRow * g));
#pragma unroll
      for (int i = 0; i < 4; ++i) x[g][i] = fmaf(score, b.x[i], x[g][i]);
    }
  }
}

/// Shares the row's scores among its four lanes.
__device__ inline void publish(float* row_scores, const float (&x)[kScoresOfLane], int lane) {
  __syncwarp();  // the last scores have been read
  for (int j = 0; j < kScoresOfLane; ++j) row_scores[lane + kLanesOfRow * j] = x[j];
  __syncwarp();
}

template <class T, int kDim>
__device__ void store_row(T* to, int head_dim, const float (&x)[kGroups<kDim>][4], float factor, int lane) {
#pragma unroll
  for (int g = 0; g < kGroups<kDim>; ++g) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int col = 4 * (lane + kLanesOfRow * g) + i;
      if (col < head_dim) to[col] = gpu::from_float<T>(x[g][i] * factor);
    }
  }
}

template <class T, int kDim>
__global__ void __launch_bounds__(kThreads) plain_forward_kernel(AttentionArguments<T> a) {
  const AttentionTile tile = a.tiles[blockIdx.y];
  const int head = static_cast<int>(blockIdx.x), kv_head = head / a.group;
  const int row = static_cast<int>(threadIdx.x / kLanesOfRow), lane = static_cast<int>(threadIdx.x % kLanesOfRow);
  SharedArena shared;
  float* queries = shared.take<float>(kRows * kPitch<kDim>);
  float* keys = shared.take<float>(kRows * kPitch<kDim>);
  float* values = shared.take<float>(kRows * kPitch<kDim>);
  float* row_scores = shared.take<float>(kRows * kScorePitch) + row * kScorePitch;

  const int rows = smaller(kRows, tile.query_length - tile.first);
  const int position = tile.key_length - tile.query_length + tile.first;
  const int keys_end = position + rows;
  const int keys_begin = a.window > 0 ? larger(0, position - a.window + 1) / kRows * kRows : 0;
  const std::int64_t first_row = tile.query_begin + tile.first;
  const std::int64_t column = static_cast<std::int64_t>(head) * a.head_dim;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * a.head_dim;
  load_tile<T, kDim>(queries, a.q + first_row * a.q_ld + column, a.q_ld, rows, a.head_dim);

  float x[kGroups<kDim>][4] = {};
  float max = -INFINITY, sum = 0;
  for (int key = keys_begin; key < keys_end; key += kRows) {
    const std::int64_t key_row = tile.key_begin + key;
    __syncthreads();  // everyone is done with the last tile
    load_tile<T, kDim>(keys, a.k + key_row * a.k_ld + kv_column, a.k_ld, keys_end - key, a.head_dim);
    load_tile<T, kDim>(values, a.v + key_row * a.v_ld + kv_column, a.v_ld, keys_end - key, a.head_dim);
    __syncthreads();
    float scores[kScoresOfLane];
    multiply_transposed<kDim>(scores, queries + row * kPitch<kDim>, keys, lane);
    float largest = max;
    for (int j = 0; j < kScoresOfLane; ++j) {
      const bool seen = sees(position + row, key + lane + kLanesOfRow * j, a.window);
      scores[j] = seen ? scores[j] * a.scale : -INFINITY;
      largest = fmaxf(largest, scores[j]);
    }
    for (int d = 1; d < kLanesOfRow; d *= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, d));
    const float finite = largest == -INFINITY ? 0.0f : largest;
    const float shrink = expf(max - finite);
    max = largest;
    sum *= shrink;
    for (float& score : scores) sum += score = expf(score - finite);
    for (auto& group : x) {
      for (float& value : group) value *= shrink;
    }
    publish(row_scores, scores, lane);
    multiply<kDim>(x, row_scores, values, lane);
  }
  for (int d = 1; d < kLanesOfRow; d *= 2) sum += __shfl_xor_sync(kAllLanes, sum, d);
  if (row < rows) {
    if (a.lse != nullptr && lane == 0) a.lse[(first_row + row) * a.lse_ld + head] = sum == 0 ? 0.0f : max + logf(sum);
    const float inverse = sum == 0 ? 0.0f : 1 / sum;  // 0 only in gaps; a NaN stays one
    store_row<T, kDim>(a.out + (first_row + row) * a.out_ld + column, a.head_dim, x, inverse, lane);
  }
}

/// What both backward kernels do with a tile: weights p and score gradients ds between the lane's row and its columns
/// of the tile, all of which see each other or not by `seen(column)`; `statistics(column)` are those of the query.
template <int kDim, class Seen, class Statistics>
__device__ void differentiate(float (&p)[kScoresOfLane], float (&ds)[kScoresOfLane], const float* own_left,
                              const float* own_right, const float* left, const float* right, float scale, int lane,
                              Seen seen, Statistics statistics) {
  multiply_transposed<kDim>(p, own_left, left, lane);
  multiply_transposed<kDim>(ds, own_right, right, lane);
  for (int j = 0; j < kScoresOfLane; ++j) {
    const int column = lane + kLanesOfRow * j;
    const RowStatistics of_query = statistics(column);
    p[j] = seen(column) ? expf(p[j] * scale - of_query.lse) : 0.0f;
    ds[j] = p[j] * (ds[j] - of_query.delta);
  }
}

template <class T, int kDim>
__global__ void __launch_bounds__(kThreads) plain_keys_backward_kernel(AttentionArguments<T> a) {
  const AttentionTile tile = a.tiles[blockIdx.y];
  const int kv_head = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(threadIdx.x / kLanesOfRow), lane = static_cast<int>(threadIdx.x % kLanesOfRow);
  SharedArena shared;
  float* keys = shared.take<float>(kRows * kPitch<kDim>);
  float* values = shared.take<float>(kRows * kPitch<kDim>);
  float* queries = shared.take<float>(kRows * kPitch<kDim>);
  float* douts = shared.take<float>(kRows * kPitch<kDim>);
  float* row_scores = shared.take<float>(kRows * kScorePitch) + row * kScorePitch;
  RowStatistics* statistics = shared.take<RowStatistics>(kRows);

  const int rows = smaller(kRows, tile.key_length - tile.first);
  const std::int64_t first_row = tile.key_begin + tile.first;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * a.head_dim;
  load_tile<T, kDim>(keys, a.k + first_row * a.k_ld + kv_column, a.k_ld, rows, a.head_dim);
  load_tile<T, kDim>(values, a.v + first_row * a.v_ld + kv_column, a.v_ld, rows, a.head_dim);

  // The queries that see any of these keys, for one head of the group after another.
  int end = tile.query_length;
  if (a.window > 0) end = smaller(end, tile.first + kRows - 1 + a.window);
  float dk[kGroups<kDim>][4] = {}, dv[kGroups<kDim>][4] = {};
  for (int head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head) {
    const std::int64_t column = static_cast<std::int64_t>(head) * a.head_dim;
    for (int query = tile.first; query < end; query += kRows) {
      const std::int64_t query_row = tile.query_begin + query;
      __syncthreads();  // everyone is done with the last tile
      load_tile<T, kDim>(queries, a.q + query_row * a.q_ld + column, a.q_ld, end - query, a.head_dim);
      load_tile<T, kDim>(douts, a.dout + query_row * a.dout_ld + column, a.dout_ld, end - query, a.head_dim);
      if (thread < kRows) {  // a query past the end gets an infinite sum, hence weights of 0
        statistics[thread] =
            query + thread < end ? a.statistics[head * a.query_rows + query_row + thread] : RowStatistics{INFINITY, 0};
      }
      __syncthreads();
      float p[kScoresOfLane], ds[kScoresOfLane];
      differentiate<kDim>(
          p, ds, keys + row * kPitch<kDim>, values + row * kPitch<kDim>, queries, douts, a.scale, lane,
          [&](int i) { return sees(query + i, tile.first + row, a.window); }, [&](int i) { return statistics[i]; });
      publish(row_scores, p, lane);
      multiply<kDim>(dv, row_scores, douts, lane);
      publish(row_scores, ds, lane);
      multiply<kDim>(dk, row_scores, queries, lane);
    }
  }
  if (row < rows) {
    store_row<T, kDim>(a.dk + (first_row + row) * a.dk_ld + kv_column, a.head_dim, dk, a.scale, lane);
    store_row<T, kDim>(a.dv + (first_row + row) * a.dv_ld + kv_column, a.head_dim, dv, 1, lane);
  }
}

template <class T, int kDim>
__global__ void __launch_bounds__(kThreads) plain_queries_backward_kernel(AttentionArguments<T> a) {
  const AttentionTile tile = a.tiles[blockIdx.y];
  const int head = static_cast<int>(blockIdx.x), kv_head = head / a.group;
  const int row = static_cast<int>(threadIdx.x / kLanesOfRow), lane = static_cast<int>(threadIdx.x % kLanesOfRow);
  SharedArena shared;
  float* queries = shared.take<float>(kRows * kPitch<kDim>);
  float* douts = shared.take<float>(kRows * kPitch<kDim>);
  float* keys = shared.take<float>(kRows * kPitch<kDim>);
  float* values = shared.take<float>(kRows * kPitch<kDim>);
  float* row_scores = shared.take<float>(kRows * kScorePitch) + row * kScorePitch;

  const int rows = smaller(kRows, tile.query_length - tile.first);
  const int position = tile.key_length - tile.query_length + tile.first;
  const int keys_end = position + rows;
  const int keys_begin = a.window > 0 ? larger(0, position - a.window + 1) / kRows * kRows : 0;
  const std::int64_t first_row = tile.query_begin + tile.first;
  const std::int64_t column = static_cast<std::int64_t>(head) * a.head_dim;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * a.head_dim;
  load_tile<T, kDim>(queries, a.q + first_row * a.q_ld + column, a.q_ld, rows, a.head_dim);
  load_tile<T, kDim>(douts, a.dout + first_row * a.dout_ld + column, a.dout_ld, rows, a.head_dim);
  RowStatistics own{INFINITY, 0};
  if (row < rows) own = a.statistics[head * a.query_rows + first_row + row];

  float dq[kGroups<kDim>][4] = {};
  for (int key = keys_begin; key < keys_end; key += kRows) {
    const std::int64_t key_row = tile.key_begin + key;
    __syncthreads();  // everyone is done with the last tile
    load_tile<T, kDim>(keys, a.k + key_row * a.k_ld + kv_column, a.k_ld, keys_end - key, a.head_dim);
    load_tile<T, kDim>(values, a.v + key_row * a.v_ld + kv_column, a.v_ld, keys_end - key, a.head_dim);
    __syncthreads();
    float p[kScoresOfLane], ds[kScoresOfLane];
    differentiate<kDim>(
        p, ds, queries + row * kPitch<kDim>, douts + row * kPitch<kDim>, keys, values, a.scale, lane,
        [&](int i) { return sees(position + row, key + i, a.window); }, [&](int) { return own; });
    publish(row_scores, ds, lane);
    multiply<kDim>(dq, row_scores, keys, lane);
  }
  if (row < rows) {
    store_row<T, kDim>(a.dq + (first_row + row) * a.dq_ld + column, a.head_dim, dq, a.scale, lane);
  }
}

/// Calls f(std::integral_constant<int, kDim>) with the smallest compiled head size that holds `head_dim`.
template <class F>
void with_plain_dim(int head_dim, F f) {
  if (head_dim <= 64) return f(std::integral_constant<int, 64>{});
  if (head_dim <= 128) return f(std::integral_constant<int, 128>{});
  f(std::integral_constant<int, 256>{});
}

constexpr std::size_t tile_bytes(int dim, int tiles) {
  return static_cast<std::size_t>(tiles) * SharedArena::bytes<float>(kRows * (dim + 4));
}
constexpr std::size_t kScoreBytes = SharedArena::bytes<float>(kRows * kScorePitch);

}  // namespace

template <class T>
void plain_attention(const AttentionArguments<T>& a, std::size_t count, Stream stream) {
  with_plain_dim(a.head_dim, [&](auto dim) {
    launch_tiles(plain_forward_kernel<T, dim()>, a, a.heads, count, kThreads, tile_bytes(dim(), 3) + kScoreBytes,
                 stream);
  });
}

template <class T>
void plain_attention_keys_backward(const AttentionArguments<T>& a, std::size_t count, Stream stream) {
  with_plain_dim(a.head_dim, [&](auto dim) {
    const std::size_t bytes = tile_bytes(dim(), 4) + kScoreBytes + SharedArena::bytes<RowStatistics>(kRows);
    launch_tiles(plain_keys_backward_kernel<T, dim()>, a, a.heads / a.group, count, kThreads, bytes, stream);
  });
}

template <class T>
void plain_attention_queries_backward(const AttentionArguments<T>& a, std::size_t count, Stream stream) {
  with_plain_dim(a.head_dim, [&](auto dim) {
    launch_tiles(plain_queries_backward_kernel<T, dim()>, a, a.heads, count, kThreads,
                 tile_bytes(dim(), 4) + kScoreBytes, stream);
  });
}

template void plain_attention(const AttentionArguments<float>&, std::size_t, Stream);
template void plain_attention(const AttentionArguments<gpu::bf16>&, std::size_t, Stream);
template void plain_attention_keys_backward(const AttentionArguments<float>&, std::size_t, Stream);
template void plain_attention_keys_backward(const AttentionArguments<gpu::bf16>&, std::size_t, Stream);
template void plain_attention_queries_backward(const AttentionArguments<float>&, std::size_t, Stream);
template void plain_attention_queries_backward(const AttentionArguments<gpu::bf16>&, std::size_t, Stream);

}  // namespace lomu::cuda

// What the attention kernels of both paths share: their argument, the rule of who sees whom, and launching.
// For .cu files only.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_blocks.h"
#include "kernels/cuda/gpu.h"

namespace lomu::cuda {

/// Per query row and head, [heads, query_rows]: what backward needs beyond the inputs.
struct alignas(8) RowStatistics {
  float lse;    ///< base 2 on the tensor-core path, natural on the plain one
  float delta;  ///< sum over features of dout * out
};

/// By value to every kernel; each uses its part. Strides are elements.
template <class T>
struct AttentionArguments {
  const AttentionTile* tiles;
  const T *q, *k, *v;
  T* out;
  float* lse;
  const T* dout;
  T *dq, *dk, *dv;
  RowStatistics* statistics;
  std::int64_t q_ld, k_ld, v_ld, out_ld, lse_ld, dout_ld, dq_ld, dk_ld, dv_ld;
  std::int64_t query_rows;
  int heads, group, head_dim;  ///< group: query heads that share a kv head
  int window;                  ///< 0: none
  float scale;
};

/// Whether the query at `position` sees `key`; both count from the sequence's first key.
__device__ inline bool sees(int position, int key, int window) {
  return key <= position && (window == 0 || position - key < window);
}
/// Whether all positions [position, +positions) see all keys [key, +keys); then no element needs a test.
__device__ inline bool all_see(int position, int positions, int key, int keys, int window) {
  return key + keys - 1 <= position && (window == 0 || position + positions - 1 - key < window);
}
/// Whether any of them sees any.
__device__ inline bool any_sees(int position, int positions, int key, int keys, int window) {
  return key <= position + positions - 1 && (window == 0 || position - (key + keys - 1) < window);
}

__device__ inline int smaller(int a, int b) {
  return a < b ? a : b;
}
__device__ inline int larger(int a, int b) {
  return a > b ? a : b;
}

// The kernels' launchers: `count` tiles from arguments.tiles on.
void tensor_attention(const AttentionArguments<gpu::bf16>& arguments, std::size_t count, Stream stream);
void tensor_attention_keys_backward(const AttentionArguments<gpu::bf16>& arguments, std::size_t count, Stream stream);
void tensor_attention_queries_backward(const AttentionArguments<gpu::bf16>& arguments, std::size_t count,
                                       Stream stream);
template <class T>
void plain_attention(const AttentionArguments<T>& arguments, std::size_t count, Stream stream);
template <class T>
void plain_attention_keys_backward(const AttentionArguments<T>& arguments, std::size_t count, Stream stream);
template <class T>
void plain_attention_queries_backward(const AttentionArguments<T>& arguments, std::size_t count, Stream stream);

/// Launches kernel(arguments) on a grid (heads, tiles): the heads of a tile run together and share keys in the cache,
/// and the longest tiles of all heads start first. A grid is at most 65535 high.
template <class T>
void launch_tiles(void (*kernel)(AttentionArguments<T>), AttentionArguments<T> arguments, int heads, std::size_t count,
                  int threads, std::size_t shared_bytes, Stream stream) {
  constexpr std::size_t kMaxHeight = 65535;
  while (count > 0) {
    const std::size_t height = count < kMaxHeight ? count : kMaxHeight;
    const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>(height));
    gpu::launch(kernel, {grid, dim3(static_cast<unsigned>(threads)), shared_bytes, stream}, arguments);
    arguments.tiles += height;
    count -= height;
  }
}

}  // namespace lomu::cuda

// Softmax attention over packed sequences, forward and backward, after FlashAttention-2 (Dao 2023, arXiv 2307.08691):
// scores exist one tile at a time and only their log-sum-exp is kept. Deterministic: no float atomics, every sum in a
// fixed order. The contract is Ops::attention in kernels/ops.h; not here: rope, projections, memory, uploading.
//
// Two paths of the same shape. kTensorCores: bf16 with head sizes that are multiples of 8 up to 128, on mma.sync.
// kPlain: f32, and bf16 with any other head size up to 256, by float32 fused multiply-adds; exact rather than fast.
//
// Backward takes 7 matrix products a tile instead of 5: one kernel goes over key blocks for dk and dv, a second over
// query blocks for dq, each computing the scores again. Five would need either atomics into dq, whose order is chance,
// or partial sums of dq in a workspace that grows with the square of the sequence. Here it is 8 bytes a row and head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"
#include "kernels/ops.h"

namespace lomu::cuda {

enum class AttentionPath : std::uint8_t { kTensorCores, kPlain };

/// Throws UnsupportedError for head sizes above 256 and element types other than bf16 and f32.
AttentionPath attention_path(DType dtype, std::int64_t head_dim);

/// One block's share of a sequence: queries (or keys, in the list for dk and dv) from `first` on, counted within the
/// sequence. Rows that no sequence covers are tiles without keys (or queries), whose results are zeros.
struct AttentionTile {
  std::int32_t query_begin, query_length, key_begin, key_length;
  std::int32_t first;
  std::int32_t positions;  ///< how many keys (queries) the block goes over; the longest come first
};

/// The blocks of each kernel for one packed batch, computed on the host. The caller copies `tiles` to the device; the
/// copy serves all layers of the same shape.
struct AttentionPlan {
  AttentionPath path = AttentionPath::kPlain;
  std::int64_t window = 0;
  std::int64_t query_rows = 0;
  std::vector<AttentionTile> tiles;  ///< `forward`, then `queries`, then `keys` of them
  std::size_t forward = 0;           ///< query blocks of the forward pass
  std::size_t queries = 0;           ///< query blocks of the backward pass; 0 unless planned
  std::size_t keys = 0;              ///< key blocks of the backward pass; 0 unless planned
};

/// query_rows, key_rows: rows of q and of k. Only with `backward` can the plan be given to attention_backward.
/// Throws Error for spans outside these rows, spans with more queries than keys, query rows in two spans, 2^30 rows or
/// more, and, if `backward`, for spans whose ranges of queries and keys differ.
AttentionPlan plan_attention(AttentionPath path, std::span<const SequenceSpan> sequences, std::int64_t query_rows,
                             std::int64_t key_rows, std::int64_t window, bool backward);

/// out, lse of q, k, v as in Ops::attention; lse.data may be null. Rows of `out` and `lse` without a sequence become 0.
/// T is BF16 or float. On the tensor-core path pointers must be 16-byte aligned and each ld a multiple of 8: else
/// Error. tiles: plan.tiles on the device. shape.window must be the plan's.
template <class T>
void attention(const AttentionShape& shape, const AttentionPlan& plan, const AttentionTile* tiles,
               DeviceRows<const T> q, DeviceRows<const T> k, DeviceRows<const T> v, DeviceRows<T> out,
               DeviceRows<float> lse, Stream stream);

/// Bytes of workspace that attention_backward needs, 16-byte aligned.
std::size_t attention_backward_bytes(std::int64_t heads, std::int64_t query_rows);

/// dq, dk, dv as in Ops::attention_backward; out and lse are those of the forward pass. Rows without a sequence
/// become 0. Three launches. Demands as above.
template <class T>
void attention_backward(const AttentionShape& shape, const AttentionPlan& plan, const AttentionTile* tiles,
                        DeviceRows<const T> q, DeviceRows<const T> k, DeviceRows<const T> v, DeviceRows<const T> out,
                        DeviceRows<const float> lse, DeviceRows<const T> dout, DeviceRows<T> dq, DeviceRows<T> dk,
                        DeviceRows<T> dv, void* workspace, Stream stream);

}  // namespace lomu::cuda

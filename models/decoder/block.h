// One block of the decoder, forward: the two halves around the point where attention reads its keys and values, so that
// training (keys in the batch) and generation (keys in a cache) run the same code. Private to models/decoder.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "kernels/ops.h"
#include "models/decoder/decoder.h"
#include "models/decoder/weights.h"
#include "models/files/model_config.h"

namespace lomu {

/// The tensors of a block for T tokens. Which of them are the block's own and which it shares with the other blocks is
/// the plan's affair (decoder_layout.h).
struct BlockTensors {
  Tensor stream_in;    ///< [T, hidden] residual
  Tensor mid;          ///< [T, hidden] residual stream between the halves; may be stream_in
  Tensor stream_out;   ///< [T, hidden] residual; may be mid
  Tensor attn_normed;  ///< [T, hidden] input of q|k|v
  Tensor projected;    ///< [T, q + 2 kv] as the linear layer made it
  Tensor rotated;      ///< [T, q + kv] after head norm and rotation; columns of `projected` without head norm
  Tensor attention;    ///< [T, q]
  Tensor lse;          ///< [T, heads]; empty where no backward pass reads it
  Tensor mlp_normed;   ///< [T, hidden] input of gate|up; may be attn_normed
  Tensor gate_up;      ///< [T, 2 f]
  Tensor hidden;       ///< [T, f] input of down
  Tensor s_qkv, s_o, s_gate_up, s_down;  ///< [T, sum of ranks]
};

/// Everything a block needs that is not its own.
struct BlockContext {
  const Ops& ops;
  const ModelConfig& config;
  Tensor cos, sin;  ///< [positions, head_dim / 2]
  const Observer& observer;

  void observe(std::int64_t layer, Stage stage, const Tensor& tensor) const {
    if (observer) observer(layer, stage, HostCopy(ops.storage(), tensor).tensor());
  }
};

inline Tensor q_of(const ModelConfig& c, const BlockTensors& t) {
  return t.rotated.columns(0, c.q_size());
}
inline Tensor k_of(const ModelConfig& c, const BlockTensors& t) {
  return t.rotated.columns(c.q_size(), c.kv_size());
}
inline Tensor v_of(const ModelConfig& c, const BlockTensors& t) {
  return t.projected.columns(c.q_size() + c.kv_size(), c.kv_size());
}

AttentionShape attention_shape(const ModelConfig& config, std::int64_t layer);

/// norm, q|k|v, head norm, rotation.
void block_until_attention(const BlockContext& context, std::int64_t layer, const LayerWeights& weights,
                           const BlockTensors& t, std::span<const std::int32_t> positions);

/// attention over `keys` and `values`, o and residual: from q|k|v to the stream between the halves.
void block_attention(const BlockContext& context, std::int64_t layer, const LayerWeights& weights,
                     const BlockTensors& t, std::span<const SequenceSpan> sequences, const Tensor& keys,
                     const Tensor& values);

/// norm, gate|up, swiglu: from the stream between the halves to the MLP's hidden.
void block_hidden(const BlockContext& context, std::int64_t layer, const LayerWeights& weights, const BlockTensors& t);

/// block_attention, block_hidden, down and residual.
void block_from_attention(const BlockContext& context, std::int64_t layer, const LayerWeights& weights,
                          const BlockTensors& t, std::span<const SequenceSpan> sequences, const Tensor& keys,
                          const Tensor& values);

/// Fills cos and sin [positions, head_dim / 2] (f32 or f64) of `storage` from double.
void fill_rope_tables(const ModelConfig& config, Storage& storage, const Tensor& cos, const Tensor& sin);

}  // namespace lomu

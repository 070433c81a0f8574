#include "models/decoder/block.h"

#include <cmath>

namespace lomu {

AttentionShape attention_shape(const ModelConfig& config, std::int64_t layer) {
  AttentionShape shape;
  shape.heads = config.num_heads;
  shape.kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.scale = 1 / std::sqrt(static_cast<double>(config.head_dim));
  shape.window = config.sliding_window[static_cast<std::size_t>(layer)];
  return shape;
}

void block_until_attention(const BlockContext& context, std::int64_t layer, const LayerWeights& weights,
                           const BlockTensors& t, std::span<const std::int32_t> positions) {
  const auto& [ops, config, cos, sin, observer] = context;
  ops.rms_norm(t.stream_in, weights.attn_norm, config.rms_norm_eps, t.attn_normed);
  context.observe(layer, Stage::kAttentionInput, t.attn_normed);
  ops.linear_forward(weights.qkv, t.attn_normed, {}, t.projected, t.s_qkv);
  context.observe(layer, Stage::kQkv, t.projected);
  if (config.qk_norm) {
    const Tensor q = t.projected.columns(0, config.q_size());
    const Tensor k = t.projected.columns(config.q_size(), config.kv_size());
    ops.head_norm(q, weights.q_norm, config.rms_norm_eps, config.num_heads, q_of(config, t));
    ops.head_norm(k, weights.k_norm, config.rms_norm_eps, config.num_kv_heads, k_of(config, t));
  }
  ops.rope(t.rotated, positions, config.num_heads + config.num_kv_heads, cos, sin, false);
  context.observe(layer, Stage::kRotated, t.rotated);
}

void block_attention(const BlockContext& context, std::int64_t layer, const LayerWeights& weights,
                     const BlockTensors& t, std::span<const SequenceSpan> sequences, const Tensor& keys,
                     const Tensor& values) {
  const Ops& ops = context.ops;
  const ModelConfig& config = context.config;
  ops.attention(attention_shape(config, layer), sequences, q_of(config, t), keys, values, t.attention, t.lse);
  context.observe(layer, Stage::kAttention, t.attention);
  ops.linear_forward(weights.o, t.attention, t.stream_in, t.mid, t.s_o);
  context.observe(layer, Stage::kAfterAttention, t.mid);
}

void block_hidden(const BlockContext& context, std::int64_t layer, const LayerWeights& weights, const BlockTensors& t) {
  const Ops& ops = context.ops;
  ops.rms_norm(t.mid, weights.mlp_norm, context.config.rms_norm_eps, t.mlp_normed);
  context.observe(layer, Stage::kMlpInput, t.mlp_normed);
  ops.linear_forward(weights.gate_up, t.mlp_normed, {}, t.gate_up, t.s_gate_up);
  context.observe(layer, Stage::kGateUp, t.gate_up);
  ops.swiglu(t.gate_up, t.hidden);
  context.observe(layer, Stage::kMlpHidden, t.hidden);
}

void block_from_attention(const BlockContext& context, std::int64_t layer, const LayerWeights& weights,
                          const BlockTensors& t, std::span<const SequenceSpan> sequences, const Tensor& keys,
                          const Tensor& values) {
  block_attention(context, layer, weights, t, sequences, keys, values);
  block_hidden(context, layer, weights, t);
  context.ops.linear_forward(weights.down, t.hidden, t.mid, t.stream_out, t.s_down);
  context.observe(layer, Stage::kBlock, t.stream_out);
}

namespace {

template <class T>
void fill_rope_tables_as(const std::vector<double>& frequencies, Storage& storage, const Tensor& cos,
                         const Tensor& sin) {
  std::vector<T> cosines;
  std::vector<T> sines;
  for (std::int64_t position = 0; position < cos.rows; ++position) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      cosines.push_back(static_cast<T>(std::cos(angle)));
      sines.push_back(static_cast<T>(std::sin(angle)));
    }
  }
  storage.upload(cos.data, cosines.data(), cosines.size() * sizeof(T));
  storage.upload(sin.data, sines.data(), sines.size() * sizeof(T));
}

}  // namespace

void fill_rope_tables(const ModelConfig& config, Storage& storage, const Tensor& cos, const Tensor& sin) {
  const std::vector<double> frequencies = rope_inverse_frequencies(config);
  if (cos.dtype == DType::kF64) {
    fill_rope_tables_as<double>(frequencies, storage, cos, sin);
  } else {
    fill_rope_tables_as<float>(frequencies, storage, cos, sin);
  }
}

}  // namespace lomu

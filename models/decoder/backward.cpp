// The mirror image of forward.cpp, with what the forward pass did not keep (recompute.h) computed again block by block.
// No gradient of a frozen weight is formed, and nothing below the lowest trained weight is computed.
#include <initializer_list>

#include "models/decoder/decoder_impl.h"

namespace lomu {

void Decoder::Impl::run_backward(const PackedBatch& batch, const PairHook& passed) {
  if (!layout.backward) return;
  if (supervised.empty()) {
    const Tensor gradients = model.gradients();
    ops.storage().zero(gradients.data, static_cast<std::size_t>(gradients.size()) * size_of(gradients.dtype));
    if (passed) passed(model.adapters()->pairs().size());
    return;
  }
  std::size_t done = 0;
  const PairHook finished = [&](std::size_t pairs) {
    done += pairs;
    if (passed && pairs > 0) passed(done);
  };
  head_backward(static_cast<std::int64_t>(batch.ids.size()), finished);
  for (std::int64_t layer = model.config().num_layers - 1; layer >= layout.first_kept; --layer)
    block_backward(batch, layer, finished);
  embedding_backward(batch.ids, finished);
}

Tensor Decoder::Impl::head_gradient() const {
  return model.full_gradient({model.config().tie_word_embeddings ? WeightKind::kEmbed : WeightKind::kLmHead, 0});
}

void Decoder::Impl::head_backward(std::int64_t tokens, const PairHook& finished) {
  // run_head has formed the gradient of the head, which is that of the embedding where they are tied.
  if (layout.d_logits && !model.config().tie_word_embeddings) finished(1);
  const auto count = static_cast<std::int64_t>(supervised.size());
  const Tensor d_normed = rows(layout.d_head_normed, count);
  const Tensor normed_rows = rows(layout.head_rows, count);
  norm_backward({WeightKind::kFinalNorm, 0}, d_normed, normed_rows, 1, finished);
  if (layout.first_kept == model.config().num_layers) return;
  const Tensor d_rows = rows(layout.d_head_rows, count);
  ops.scatter_rows(d_rows.row_range(0, 0), {}, d_rows);  // to zero: rms_norm_backward adds
  ops.rms_norm_backward(d_normed, normed_rows, model.weights().final_norm, model.config().rms_norm_eps, d_rows);
  ops.scatter_rows(d_rows, supervised, rows(layout.d_stream, tokens));
}

void Decoder::Impl::norm_backward(WeightId norm, const Tensor& dy, const Tensor& x, std::int64_t heads,
                                  const PairHook& finished) {
  const Tensor gradient = model.full_gradient(norm);
  if (gradient.empty()) return;
  ops.norm_weight_gradient(dy, x, model.config().rms_norm_eps, heads, gradient);
  finished(1);
}

void Decoder::Impl::embedding_backward(std::span<const std::int32_t> tokens, const PairHook& finished) {
  const Tensor gradient = model.full_gradient({WeightKind::kEmbed, 0});
  if (gradient.empty()) return;
  if (!model.config().tie_word_embeddings) {
    ops.storage().zero(gradient.data, static_cast<std::size_t>(gradient.size()) * size_of(gradient.dtype));
  }
  ops.embed_backward(tokens, rows(layout.d_stream, static_cast<std::int64_t>(tokens.size())), gradient);
  finished(1);
}

void Decoder::Impl::block_backward(const PackedBatch& batch, std::int64_t layer, const PairHook& finished) {
  const auto tokens = static_cast<std::int64_t>(batch.ids.size());
  const LayerWeights& w = layers[static_cast<std::size_t>(layer)];
  const GroupTrained trained = trained_groups(model.adapters()->pairs(), layer);
  const BlockTensors t = tensors(layer, tokens);
  const double eps = model.config().rms_norm_eps;
  const Tensor d_stream = rows(layout.d_stream, tokens);
  const Tensor d_normed = rows(layout.d_normed, tokens);
  const Tensor d_hidden = rows(layout.d_hidden, tokens);
  const Tensor d_attention = rows(layout.d_attention, tokens);
  const Tensor d_qkv = rows(layout.d_qkv, tokens);
  const auto backward_of = [&](const AdaptedLinear& linear, std::initializer_list<WeightKind> parts, const Tensor& x,
                               const Tensor& s, const Tensor& dy, const Tensor& dx) {
    std::size_t done = 0;
    std::int64_t first = 0;
    std::size_t part = 0;
    for (const WeightKind kind : parts) {
      const Tensor gradient = model.full_gradient({kind, layer});
      const std::int64_t out = linear.frozen.outs[part];
      if (!gradient.empty()) ops.weight_gradient(x, dy.columns(first, out), gradient);
      if (!gradient.empty() || linear.adapters[part].rank > 0) ++done;
      first += out;
      ++part;
    }
    ops.linear_backward(linear, x, s, dy, dx);
    finished(done);
  };
  /// Whether nothing before group `g` of this block needs a gradient.
  const auto ends_at = [&](int g) { return layer == layout.first_kept && layout.last_group == g; };

  recompute(batch, layer, t);
  backward_of(w.down, {WeightKind::kDown}, t.hidden, t.s_down, d_stream, ends_at(3) ? Tensor{} : d_hidden);
  if (ends_at(3)) return;

  ops.swiglu_backward(d_hidden, t.gate_up, t.gate_up);
  backward_of(w.gate_up, {WeightKind::kGate, WeightKind::kUp}, t.mlp_normed, t.s_gate_up, t.gate_up,
              ends_at(2) ? Tensor{} : d_normed);
  if (ends_at(2)) return;
  norm_backward({WeightKind::kMlpNorm, layer}, d_normed, t.mid, 1, finished);
  ops.rms_norm_backward(d_normed, t.mid, w.mlp_norm, eps, d_stream);

  backward_of(w.o, {WeightKind::kO}, t.attention, t.s_o, d_stream, ends_at(1) ? Tensor{} : d_attention);
  if (ends_at(1)) return;

  attention_backward(batch, layer, t, d_qkv, finished);
  // One buffer serves both norms where they are not kept, so this one waits until the other has been read.
  if (capacity.recompute != Recompute::kNone && trained[0]) {
    ops.rms_norm(t.stream_in, w.attn_norm, eps, t.attn_normed);
  }
  backward_of(w.qkv, {WeightKind::kQ, WeightKind::kK, WeightKind::kV}, t.attn_normed, t.s_qkv, d_qkv,
              ends_at(0) ? Tensor{} : d_normed);
  if (ends_at(0)) return;
  norm_backward({WeightKind::kAttnNorm, layer}, d_normed, t.stream_in, 1, finished);
  ops.rms_norm_backward(d_normed, t.stream_in, w.attn_norm, eps, d_stream);
}

void Decoder::Impl::recompute(const PackedBatch& batch, std::int64_t layer, const BlockTensors& t) {
  // The forward pass ended with the last block: what it left in the shared buffers is still there.
  if (layer + 1 == model.config().num_layers) return;
  const LayerWeights& w = layers[static_cast<std::size_t>(layer)];
  const GroupTrained trained = trained_groups(model.adapters()->pairs(), layer);
  switch (capacity.recompute) {
    case Recompute::kNone: return;
    case Recompute::kNorms:
      if (trained[3]) ops.swiglu(t.gate_up, t.hidden);
      if (trained[2]) ops.rms_norm(t.mid, w.mlp_norm, model.config().rms_norm_eps, t.mlp_normed);
      return;
    case Recompute::kBlock:
      block_until_attention(unobserved, layer, w, t, batch.positions);
      block_attention(unobserved, layer, w, t, sequences, k_of(model.config(), t), v_of(model.config(), t));
      [[fallthrough]];
    case Recompute::kMlp: block_hidden(unobserved, layer, w, t);
  }
}

void Decoder::Impl::attention_backward(const PackedBatch& batch, std::int64_t layer, const BlockTensors& t,
                                       const Tensor& d_qkv, const PairHook& finished) {
  const ModelConfig& c = model.config();
  const Tensor d_q = d_qkv.columns(0, c.q_size());
  const Tensor d_k = d_qkv.columns(c.q_size(), c.kv_size());
  const Tensor d_v = d_qkv.columns(c.q_size() + c.kv_size(), c.kv_size());
  ops.attention_backward(attention_shape(c, layer), sequences, q_of(c, t), k_of(c, t), v_of(c, t), t.attention, t.lse,
                         rows(layout.d_attention, d_qkv.rows), d_q, d_k, d_v);
  ops.rope(d_qkv.columns(0, c.q_size() + c.kv_size()), batch.positions, c.num_heads + c.num_kv_heads, context.cos,
           context.sin, true);
  if (!c.qk_norm) return;
  const LayerWeights& w = layers[static_cast<std::size_t>(layer)];
  const Tensor q = t.projected.columns(0, c.q_size());
  const Tensor k = t.projected.columns(c.q_size(), c.kv_size());
  norm_backward({WeightKind::kKNorm, layer}, d_k, k, c.num_kv_heads, finished);
  norm_backward({WeightKind::kQNorm, layer}, d_q, q, c.num_heads, finished);
  ops.head_norm_backward(q, w.q_norm, c.rms_norm_eps, c.num_heads, d_q);
  ops.head_norm_backward(k, w.k_norm, c.rms_norm_eps, c.num_kv_heads, d_k);
}

}  // namespace lomu

// The mirror image of forward.cpp, with what the forward pass did not keep (recompute.h) computed again block by block.
// No gradient of a frozen weight is formed, and nothing below the lowest adapter is computed.
#include <algorithm>

#include "models/decoder/decoder_impl.h"

namespace lomu {

void Decoder::Impl::run_backward(const PackedBatch& batch, const PairHook& passed) {
  const std::int64_t layer_count = model.config().num_layers;
  if (layout.first_kept == layer_count) return;
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
  head_backward(static_cast<std::int64_t>(batch.ids.size()));
  for (std::int64_t layer = layer_count - 1; layer >= layout.first_kept; --layer)
    block_backward(batch, layer, finished);
}

void Decoder::Impl::head_backward(std::int64_t tokens) {
  const auto count = static_cast<std::int64_t>(supervised.size());
  const Tensor d_rows = rows(layout.d_head_rows, count);
  ops.scatter_rows(d_rows.row_range(0, 0), {}, d_rows);  // to zero: rms_norm_backward adds
  ops.rms_norm_backward(rows(layout.d_head_normed, count), rows(layout.head_rows, count), model.weights().final_norm,
                        model.config().rms_norm_eps, d_rows);
  ops.scatter_rows(d_rows, supervised, rows(layout.d_stream, tokens));
}

void Decoder::Impl::block_backward(const PackedBatch& batch, std::int64_t layer, const PairHook& finished) {
  const auto tokens = static_cast<std::int64_t>(batch.ids.size());
  const LayerWeights& w = layers[static_cast<std::size_t>(layer)];
  const BlockTensors t = tensors(layer, tokens);
  const double eps = model.config().rms_norm_eps;
  const Tensor d_stream = rows(layout.d_stream, tokens);
  const Tensor d_normed = rows(layout.d_normed, tokens);
  const Tensor d_hidden = rows(layout.d_hidden, tokens);
  const Tensor d_attention = rows(layout.d_attention, tokens);
  const Tensor d_qkv = rows(layout.d_qkv, tokens);
  const auto backward_of = [&](const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                               const Tensor& dx) {
    ops.linear_backward(linear, x, s, dy, dx);
    finished(static_cast<std::size_t>(
        std::count_if(linear.adapters.begin(), linear.adapters.end(), [](const Adapter& a) { return a.rank > 0; })));
  };
  /// Whether nothing before group `g` of this block needs a gradient.
  const auto ends_at = [&](std::size_t g) { return layer == layout.first_kept && layout.last_group == g; };

  recompute(batch, layer, t);
  backward_of(w.down, t.hidden, t.s_down, d_stream, ends_at(3) ? Tensor{} : d_hidden);
  if (ends_at(3)) return;

  ops.swiglu_backward(d_hidden, t.gate_up, t.gate_up);
  backward_of(w.gate_up, t.mlp_normed, t.s_gate_up, t.gate_up, ends_at(2) ? Tensor{} : d_normed);
  if (ends_at(2)) return;
  ops.rms_norm_backward(d_normed, t.mid, w.mlp_norm, eps, d_stream);

  backward_of(w.o, t.attention, t.s_o, d_stream, ends_at(1) ? Tensor{} : d_attention);
  if (ends_at(1)) return;

  attention_backward(batch, layer, t, d_qkv);
  // One buffer serves both norms where they are not kept, so this one waits until the other has been read.
  if (capacity.recompute != Recompute::kNone && w.qkv.total_rank() > 0) {
    ops.rms_norm(t.stream_in, w.attn_norm, eps, t.attn_normed);
  }
  backward_of(w.qkv, t.attn_normed, t.s_qkv, d_qkv, ends_at(0) ? Tensor{} : d_normed);
  if (ends_at(0)) return;
  ops.rms_norm_backward(d_normed, t.stream_in, w.attn_norm, eps, d_stream);
}

void Decoder::Impl::recompute(const PackedBatch& batch, std::int64_t layer, const BlockTensors& t) {
  // The forward pass ended with the last block: what it left in the shared buffers is still there.
  if (layer + 1 == model.config().num_layers) return;
  const LayerWeights& w = layers[static_cast<std::size_t>(layer)];
  switch (capacity.recompute) {
    case Recompute::kNone: return;
    case Recompute::kNorms:
      if (w.down.total_rank() > 0) ops.swiglu(t.gate_up, t.hidden);
      if (w.gate_up.total_rank() > 0) ops.rms_norm(t.mid, w.mlp_norm, model.config().rms_norm_eps, t.mlp_normed);
      return;
    case Recompute::kBlock:
      block_until_attention(unobserved, layer, w, t, batch.positions);
      block_attention(unobserved, layer, w, t, sequences, k_of(model.config(), t), v_of(model.config(), t));
      [[fallthrough]];
    case Recompute::kMlp: block_hidden(unobserved, layer, w, t);
  }
}

void Decoder::Impl::attention_backward(const PackedBatch& batch, std::int64_t layer, const BlockTensors& t,
                                       const Tensor& d_qkv) {
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
  ops.head_norm_backward(t.projected.columns(0, c.q_size()), w.q_norm, c.rms_norm_eps, c.num_heads, d_q);
  ops.head_norm_backward(t.projected.columns(c.q_size(), c.kv_size()), w.k_norm, c.rms_norm_eps, c.num_kv_heads, d_k);
}

}  // namespace lomu

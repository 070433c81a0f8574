#include "models/decoder/decoder_layout.h"

#include <fmt/format.h>

#include <algorithm>

namespace lomu {
namespace {

constexpr std::array kGroups{&LayerWeights::qkv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down};
constexpr std::array kGroupNames{"q|k|v", "o", "gate|up", "down"};

/// log-sum-exp, losses and rotation tables.
DType table_type(const Precision& p) {
  return p.residual == DType::kF64 ? DType::kF64 : DType::kF32;
}

}  // namespace

std::array<std::int64_t, 4> group_ranks(const ModelConfig& config, std::span<const PairInfo> pairs,
                                        std::int64_t layer) {
  const LayerWeights shape = shape_of_layer(config, pairs, layer);
  std::array<std::int64_t, 4> ranks{};
  for (std::size_t g = 0; g < ranks.size(); ++g) ranks[g] = (shape.*kGroups[g]).total_rank();
  return ranks;
}

std::array<std::int64_t, 4> largest_group_ranks(const ModelConfig& config, std::span<const PairInfo> pairs,
                                                std::int64_t end) {
  std::array<std::int64_t, 4> largest{};
  for (std::int64_t layer = 0; layer < end; ++layer) {
    const auto ranks = group_ranks(config, pairs, layer);
    for (std::size_t g = 0; g < ranks.size(); ++g) largest[g] = std::max(largest[g], ranks[g]);
  }
  return largest;
}

BlockEntries add_block(BufferPlan& plan, const ModelConfig& config, const Precision& precision, std::string name,
                       std::int64_t tokens, std::size_t stream, bool keep, const std::array<std::int64_t, 4>& ranks) {
  const std::int64_t q = config.q_size();
  const std::int64_t kv = config.kv_size();
  const auto add = [&](const char* what, DType dtype, std::int64_t cols) {
    return plan.add(Scope::kActivations, fmt::format("{}, {}", name, what), dtype, tokens, cols);
  };
  BlockEntries e;
  e.stream_in = stream;
  e.mid = keep ? add("stream after attention", precision.residual, config.hidden_size) : stream;
  e.projected = add("q|k|v", precision.activation, q + 2 * kv);
  if (config.qk_norm) e.rotated = add("normed q|k", precision.activation, q + kv);
  e.attention = add("attention", precision.activation, q);
  if (keep) e.lse = add("log-sum-exp", table_type(precision), config.num_heads);
  e.gate_up = add("gate|up", precision.activation, 2 * config.intermediate_size);
  for (std::size_t g = 0; g < ranks.size(); ++g) {
    e.s[g] = plan.add(Scope::kActivations, fmt::format("{}, low rank {}", name, kGroupNames[g]), precision.activation,
                      tokens, ranks[g]);
  }
  e.stream_out = keep ? add("stream", precision.residual, config.hidden_size) : stream;
  return e;
}

BlockTensors block_tensors(const Buffers& buffers, const BlockEntries& entries, const ModelConfig& config,
                           const LayerWeights& weights, std::size_t normed, std::size_t hidden, std::int64_t tokens) {
  const auto first = [&](std::size_t index) { return buffers.tensor(index).row_range(0, tokens); };
  const auto low_rank = [&](std::size_t g) {
    const Tensor whole = buffers.tensor(entries.s[g]);
    return Tensor(whole.data, whole.dtype, tokens, (weights.*kGroups[g]).total_rank());
  };
  BlockTensors t;
  t.stream_in = first(entries.stream_in);
  t.mid = first(entries.mid);
  t.stream_out = first(entries.stream_out);
  t.normed = first(normed);
  t.projected = first(entries.projected);
  t.rotated = entries.rotated ? first(*entries.rotated) : t.projected.columns(0, config.q_size() + config.kv_size());
  t.attention = first(entries.attention);
  if (entries.lse) t.lse = first(*entries.lse);
  t.gate_up = first(entries.gate_up);
  t.hidden = first(hidden);
  t.s_qkv = low_rank(0);
  t.s_o = low_rank(1);
  t.s_gate_up = low_rank(2);
  t.s_down = low_rank(3);
  return t;
}

DecoderLayout::DecoderLayout(const ModelConfig& config, std::span<const PairInfo> pairs, const Precision& precision,
                             const DecoderCapacity& capacity)
    : first_kept(config.num_layers) {
  if (capacity.backward) {
    for (const PairInfo& pair : pairs) first_kept = std::min(first_kept, pair.layer);
  }
  const bool backward = first_kept < config.num_layers;
  const std::int64_t tokens = capacity.tokens;
  const std::int64_t supervised = std::max<std::int64_t>(1, capacity.supervised);
  const auto add = [&](const char* what, DType dtype, std::int64_t rows, std::int64_t cols,
                       Scope scope = Scope::kActivations) { return plan.add(scope, what, dtype, rows, cols); };

  stream = add("residual stream", precision.residual, tokens, config.hidden_size);
  if (first_kept > 0) {
    const auto ranks = largest_group_ranks(config, pairs, first_kept);
    const auto shared = add_block(plan, config, precision, "blocks without backward", tokens, stream, false, ranks);
    blocks.assign(static_cast<std::size_t>(first_kept), shared);
  }
  for (std::int64_t layer = first_kept; layer < config.num_layers; ++layer) {
    const std::size_t in = layer == first_kept ? stream : blocks.back().stream_out;
    blocks.push_back(add_block(plan, config, precision, fmt::format("block {}", layer), tokens, in, true,
                               group_ranks(config, pairs, layer)));
  }

  const Scope work = Scope::kWorkspace;
  normed = add("normed input", precision.activation, tokens, config.hidden_size, work);
  hidden = add("mlp hidden", precision.activation, tokens, config.intermediate_size, work);
  cos = add("cosines", table_type(precision), std::max<std::int64_t>(1, capacity.document), config.head_dim / 2, work);
  sin = add("sines", table_type(precision), std::max<std::int64_t>(1, capacity.document), config.head_dim / 2, work);
  head_rows = add("supervised rows", precision.residual, supervised, config.hidden_size, work);
  head_normed = add("normed supervised rows", precision.activation, supervised, config.hidden_size, work);
  losses = add("losses", table_type(precision), supervised, 1, work);
  if (!backward) return;

  const auto ranks = group_ranks(config, pairs, first_kept);
  while (ranks[last_group] == 0) ++last_group;
  d_stream = add("gradient of the stream", precision.residual, tokens, config.hidden_size, work);
  d_normed = add("gradient of normed input", precision.activation, tokens, config.hidden_size, work);
  d_hidden = add("gradient of mlp hidden", precision.activation, tokens, config.intermediate_size, work);
  d_attention = add("gradient of attention", precision.activation, tokens, config.q_size(), work);
  d_qkv = add("gradient of q|k|v", precision.activation, tokens, config.q_size() + 2 * config.kv_size(), work);
  d_head_normed = add("gradient of normed rows", precision.activation, supervised, config.hidden_size, work);
  d_head_rows = add("gradient of supervised rows", precision.residual, supervised, config.hidden_size, work);
}

}  // namespace lomu

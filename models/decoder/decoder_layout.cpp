#include "models/decoder/decoder_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace lomu {
namespace {

constexpr std::array kGroups{&LayerWeights::qkv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down};
constexpr std::array kGroupNames{"q|k|v", "o", "gate|up", "down"};

/// log-sum-exp, losses and rotation tables.
DType table_type(const Precision& p) {
  return p.residual == DType::kF64 ? DType::kF64 : DType::kF32;
}

/// DecoderLayout::last_group: what lies below the norm of a group needs that group's gradient first.
int lowest_group(std::span<const PairInfo> pairs, std::int64_t layer) {
  int lowest = 3;
  for (const PairInfo& pair : pairs) {
    const WeightKind kind = pair.weight.kind;
    if (kind == WeightKind::kEmbed) return -1;
    if (!is_per_layer(kind) || pair.layer != layer) continue;
    if (kind == WeightKind::kAttnNorm) return -1;
    if (kind == WeightKind::kQNorm || kind == WeightKind::kKNorm) lowest = 0;
    if (kind == WeightKind::kMlpNorm) lowest = std::min(lowest, 1);
    if (!site_of(kind)) continue;
    const auto at = std::find(kGroups.begin(), kGroups.end(), place_of(pair.site).group);
    lowest = std::min(lowest, static_cast<int>(at - kGroups.begin()));
  }
  return lowest;
}

}  // namespace

GroupRanks group_ranks(const ModelConfig& config, std::span<const PairInfo> pairs, std::int64_t layer) {
  const LayerWeights shape = shape_of_layer(config, pairs, layer);
  GroupRanks ranks{};
  for (std::size_t g = 0; g < ranks.size(); ++g) ranks[g] = (shape.*kGroups[g]).total_rank();
  return ranks;
}

GroupTrained trained_groups(std::span<const PairInfo> pairs, std::int64_t layer) {
  GroupTrained trained{};
  for (const PairInfo& pair : pairs) {
    if (!is_per_layer(pair.weight.kind) || pair.layer != layer || !site_of(pair.weight.kind)) continue;
    const auto at = std::find(kGroups.begin(), kGroups.end(), place_of(pair.site).group);
    trained[static_cast<std::size_t>(at - kGroups.begin())] = true;
  }
  return trained;
}

GroupRanks largest_group_ranks(const ModelConfig& config, std::span<const PairInfo> pairs) {
  GroupRanks largest{};
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const GroupRanks ranks = group_ranks(config, pairs, layer);
    for (std::size_t g = 0; g < ranks.size(); ++g) largest[g] = std::max(largest[g], ranks[g]);
  }
  return largest;
}

std::int64_t group_spare(const ModelConfig& config, const Ops& ops, const GroupRanks& ranks, std::size_t g) {
  return spare_columns(config, ops, kGroups[g], ranks[g]);
}

BlockEntries BlockPlanner::add_forward_only(std::size_t stream) {
  return add(stream, {});
}

BlockEntries BlockPlanner::add_kept(std::int64_t layer, std::size_t stream, Recompute recompute,
                                    const GroupRanks& ranks, const GroupTrained& trained) {
  return add(stream, Kept{layer, recompute, ranks, trained});
}

std::size_t BlockPlanner::shared(std::string_view what, DType dtype, std::int64_t cols, std::int64_t spare) {
  const auto found = shared_.find(what);
  if (found != shared_.end()) return found->second;
  const std::size_t entry =
      plan_.add(Scope::kWorkspace, fmt::format("any block, {}", what), dtype, tokens_, cols, spare);
  shared_.emplace(what, entry);
  return entry;
}

BlockEntries BlockPlanner::add(std::size_t stream, const std::optional<Kept>& kept) {
  const auto [activation, residual, gradient] = ops_.precision();
  const std::int64_t hidden = config_.hidden_size;
  const std::int64_t q = config_.q_size();
  const std::int64_t kv = config_.kv_size();
  /// Whether the block keeps what is given up after level `last` of the ladder.
  const auto keeps = [&](Recompute last) { return kept && kept->recompute <= last; };
  const auto own = [&](std::string_view what, DType dtype, std::int64_t cols, std::int64_t spare = 0) {
    return plan_.add(Scope::kActivations, fmt::format("block {}, {}", kept->layer, what), dtype, tokens_, cols, spare);
  };
  const auto place = [&](bool is_own, std::string_view what, DType dtype, std::int64_t cols, std::int64_t spare = 0) {
    return is_own ? own(what, dtype, cols, spare) : shared(what, dtype, cols, spare);
  };
  const auto spare = [&](bool is_own, std::size_t group) {
    return group_spare(config_, ops_, is_own ? kept->ranks : widest_, group);
  };
  /// An input of a linear layer is read again for the gradients of its adapters and full weights alone.
  const auto keeps_input = [&](std::size_t group) { return keeps(Recompute::kNone) && kept->trained[group]; };
  /// Both norms of a block write to one buffer where it is shared.
  const auto place_normed = [&](std::size_t group) {
    const bool is_own = keeps_input(group);
    const std::int64_t columns = is_own ? spare(true, group) : std::max(spare(false, 0), spare(false, 2));
    return place(is_own, "normed input", activation, hidden, columns);
  };
  const auto place_low_rank = [&](std::size_t group, bool is_own) -> std::optional<std::size_t> {
    const std::string what = fmt::format("low rank {}", kGroupNames[group]);
    if (is_own) return own(what, activation, kept->ranks[group]);
    // Backward reads it after its input has gone; without backward the copy beside the input is enough.
    if (!kept && spare(false, group) > 0) return std::nullopt;
    return shared(what, activation, widest_[group], 0);
  };

  BlockEntries e;
  const bool keeps_attention = keeps(Recompute::kMlp);
  e.stream_in = stream;
  e.attn_normed = place_normed(0);
  e.projected = place(keeps_attention, "q|k|v", activation, q + 2 * kv);
  if (config_.qk_norm) e.rotated = place(keeps_attention, "normed q|k", activation, q + kv);
  e.attention = place(keeps_attention, "attention", activation, q, spare(keeps_attention, 1));
  if (kept) e.lse = place(keeps_attention, "log-sum-exp", table_type(ops_.precision()), config_.num_heads);
  e.mid = kept ? place(keeps_attention, "stream after attention", residual, hidden) : stream;
  e.mlp_normed = place_normed(2);
  const bool keeps_gate_up = keeps(Recompute::kNorms);
  e.gate_up = place(keeps_gate_up, "gate|up", activation, 2 * config_.intermediate_size, spare(keeps_gate_up, 2));
  e.hidden = place(keeps_input(3), "mlp hidden", activation, config_.intermediate_size, spare(keeps_input(3), 3));
  e.s = {place_low_rank(0, keeps_attention), place_low_rank(1, keeps_attention), place_low_rank(2, keeps_gate_up),
         place_low_rank(3, keeps(Recompute::kBlock))};
  e.stream_out = kept ? own("stream", residual, hidden) : stream;
  return e;
}

BlockTensors block_tensors(const Buffers& buffers, const BlockEntries& entries, const ModelConfig& config,
                           const LayerWeights& weights, std::int64_t tokens) {
  const auto first = [&](std::size_t index) { return buffers.tensor(index).row_range(0, tokens); };
  const auto low_rank = [&](std::size_t g, const Tensor& input) {
    const std::int64_t rank = (weights.*kGroups[g]).total_rank();
    if (!entries.s[g]) return input.columns(input.cols, rank);
    const Tensor whole = buffers.tensor(*entries.s[g]);
    return Tensor(whole.data, whole.dtype, tokens, rank);
  };
  BlockTensors t;
  t.stream_in = first(entries.stream_in);
  t.mid = first(entries.mid);
  t.stream_out = first(entries.stream_out);
  t.attn_normed = first(entries.attn_normed);
  t.projected = first(entries.projected);
  t.rotated = entries.rotated ? first(*entries.rotated) : t.projected.columns(0, config.q_size() + config.kv_size());
  t.attention = first(entries.attention);
  if (entries.lse) t.lse = first(*entries.lse);
  t.mlp_normed = first(entries.mlp_normed);
  t.gate_up = first(entries.gate_up);
  t.hidden = first(entries.hidden);
  t.s_qkv = low_rank(0, t.attn_normed);
  t.s_o = low_rank(1, t.attention);
  t.s_gate_up = low_rank(2, t.mlp_normed);
  t.s_down = low_rank(3, t.hidden);
  return t;
}

Workload workload_of(const ModelConfig& config, std::span<const PairInfo> pairs, double dropout, const Ops& ops,
                     const DecoderCapacity& capacity) {
  Workload w;
  w.tokens = capacity.tokens;
  w.document = std::max<std::int64_t>(1, capacity.document);
  w.supervised = std::max<std::int64_t>(1, capacity.supervised);
  w.backward = capacity.backward && !pairs.empty();
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const LayerWeights shape = shape_of_layer(config, pairs, layer);
    for (const auto group : kGroups) {
      Workload::Linear linear;
      linear.layer = shape.*group;
      linear.layer.frozen.spare = spare_columns(config, ops, group, linear.layer.total_rank());
      linear.to_stream = group == &LayerWeights::o || group == &LayerWeights::down;
      linear.bias = has_bias(config, group);
      for (Adapter& adapter : linear.layer.adapters) adapter.dropout.p = static_cast<float>(dropout);
      w.linears.push_back(std::move(linear));
    }
  }
  w.attention = attention_shape(config, 0);
  w.hidden = config.hidden_size;
  w.intermediate = config.intermediate_size;
  w.head.in = config.hidden_size;
  w.head.outs = {config.vocab_size};
  for (const PairInfo& pair : pairs) {
    if (pair.full && pair.out > 1) w.widest_trained = std::max(w.widest_trained, pair.out);
  }
  return w;
}

DecoderLayout::DecoderLayout(const ModelConfig& config, std::span<const PairInfo> pairs, const Ops& ops,
                             const DecoderCapacity& capacity)
    : first_kept(config.num_layers) {
  const Precision precision = ops.precision();
  if (capacity.backward) {
    backward = !pairs.empty();
    for (const PairInfo& pair : pairs) {
      if (is_per_layer(pair.weight.kind)) first_kept = std::min(first_kept, pair.layer);
      if (pair.weight.kind == WeightKind::kEmbed) first_kept = 0;
    }
    last_group = lowest_group(pairs, first_kept);
  }
  const std::int64_t tokens = capacity.tokens;
  const std::int64_t supervised = std::max<std::int64_t>(1, capacity.supervised);
  const auto add = [&](const char* what, DType dtype, std::int64_t rows, std::int64_t cols,
                       Scope scope = Scope::kActivations) { return plan.add(scope, what, dtype, rows, cols); };

  stream = add("residual stream", precision.residual, tokens, config.hidden_size);
  const GroupRanks widest = largest_group_ranks(config, pairs);
  BlockPlanner planner(plan, config, ops, tokens, widest);
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (layer < first_kept) {
      blocks.push_back(planner.add_forward_only(stream));
      continue;
    }
    const std::size_t in = layer == first_kept ? stream : blocks.back().stream_out;
    blocks.push_back(planner.add_kept(layer, in, capacity.recompute, group_ranks(config, pairs, layer),
                                      trained_groups(pairs, layer)));
  }

  const Scope work = Scope::kWorkspace;
  cos = add("cosines", table_type(precision), std::max<std::int64_t>(1, capacity.document), config.head_dim / 2, work);
  sin = add("sines", table_type(precision), std::max<std::int64_t>(1, capacity.document), config.head_dim / 2, work);
  head_rows = add("supervised rows", precision.residual, supervised, config.hidden_size, work);
  head_normed = add("normed supervised rows", precision.activation, supervised, config.hidden_size, work);
  losses = add("losses", table_type(precision), supervised, 1, work);
  if (!backward) return;

  const bool head_is_trained = std::any_of(pairs.begin(), pairs.end(), [&](const PairInfo& p) {
    return p.weight.kind == WeightKind::kLmHead || (p.weight.kind == WeightKind::kEmbed && config.tie_word_embeddings);
  });
  if (head_is_trained) {
    d_logits = add("gradient of the logits", precision.activation, supervised, config.vocab_size, work);
  }
  d_stream = add("gradient of the stream", precision.residual, tokens, config.hidden_size, work);
  d_normed = add("gradient of normed input", precision.activation, tokens, config.hidden_size, work);
  d_hidden = add("gradient of mlp hidden", precision.activation, tokens, config.intermediate_size, work);
  d_attention = add("gradient of attention", precision.activation, tokens, config.q_size(), work);
  d_qkv = plan.add(work, "gradient of q|k|v", precision.activation, tokens, config.q_size() + 2 * config.kv_size(),
                   group_spare(config, ops, widest, 0));
  d_head_normed = add("gradient of normed rows", precision.activation, supervised, config.hidden_size, work);
  d_head_rows = add("gradient of supervised rows", precision.residual, supervised, config.hidden_size, work);
}

}  // namespace lomu

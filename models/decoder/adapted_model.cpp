#include "models/decoder/adapted_model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

namespace lomu {
namespace {

constexpr std::array kGroups{&LayerWeights::qkv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down};

std::size_t padded(std::size_t bytes) {
  return (bytes + Memory::kAlignment - 1) / Memory::kAlignment * Memory::kAlignment;
}

/// Where the weights of a model point to this norm; null for what is no norm.
const float** norm_of(ModelWeights& weights, WeightId id) {
  if (id.kind == WeightKind::kFinalNorm) return &weights.final_norm;
  if (!is_per_layer(id.kind)) return nullptr;
  LayerWeights& layer = weights.layers[static_cast<std::size_t>(id.layer)];
  switch (id.kind) {
    case WeightKind::kAttnNorm: return &layer.attn_norm;
    case WeightKind::kMlpNorm: return &layer.mlp_norm;
    case WeightKind::kQNorm: return &layer.q_norm;
    case WeightKind::kKNorm: return &layer.k_norm;
    default: return nullptr;
  }
}

}  // namespace

LayerWeights shape_of_layer(const ModelConfig& config, std::span<const PairInfo> pairs, std::int64_t layer) {
  LayerWeights shape;
  for (const Site site : kAllSites) {
    AdaptedLinear& group = shape.*place_of(site).group;
    const WeightShape weight = shape_of(config, weight_of(layer, site));
    group.frozen.in = weight.cols;
    group.frozen.outs.push_back(weight.rows);
    group.bias.push_back(nullptr);
    group.adapters.emplace_back();
  }
  for (const PairInfo& pair : pairs) {
    if (pair.layer != layer || pair.full) continue;
    const auto [group, part] = place_of(pair.site);
    (shape.*group).adapters[part].rank = pair.rank;
    (shape.*group).adapters[part].scale = pair.scale;
  }
  return shape;
}

AdaptedModel::AdaptedModel(const ModelWeights& weights, AdapterSet* adapters, const Ops& ops, Memory& memory)
    : weights_(weights), adapters_(adapters), ops_(&ops) {
  if (adapters == nullptr) return;
  if (adapters->has_full() && !ops.trains_weights()) ops.refuse_training_weights();
  place_factors(memory);
  for (const PairInfo& pair : adapters->pairs()) {
    if (!pair.full) attach_pair(pair);
  }
  packed_ = memory.allocate(Scope::kAdapters, packed_bytes(config(), adapters->pairs(), ops), "packed adapter factors");
  std::byte* next = packed_.data();
  for (LayerWeights& layer : weights_.layers) {
    for (const auto group : kGroups) {
      AdaptedLinear& linear = layer.*group;
      if (linear.total_rank() == 0) continue;
      linear.packed = next;
      next += padded(ops.adapter_bytes(linear));
    }
  }
  for (const PairInfo& pair : adapters->pairs()) {
    if (pair.full) next = attach_full(pair, next);
  }
  refresh();
}

void AdaptedModel::attach_pair(const PairInfo& pair) {
  const auto [group, part] = place_of(pair.site);
  Adapter& adapter = (weights_.layers[static_cast<std::size_t>(pair.layer)].*group).adapters[part];
  adapter.rank = pair.rank;
  adapter.scale = pair.scale;
  adapter.a = factors_ + pair.offset_a;
  adapter.b = factors_ + pair.offset_b;
  if (gradients_.empty()) return;
  adapter.grad_a = gradients_.columns(pair.offset_a, pair.size_a()).data;
  adapter.grad_b = gradients_.columns(pair.offset_b, pair.size_b()).data;
}

std::byte* AdaptedModel::attach_full(const PairInfo& pair, std::byte* storage) {
  // A norm is read where the optimizer moves it.
  if (const float** const norm = norm_of(weights_, pair.weight)) {
    *norm = factors_ + pair.offset_b;
    return storage;
  }
  const auto own = [&](FrozenLinear& linear) {
    const std::size_t bytes = ops_->frozen_bytes(linear);
    std::memcpy(storage, linear.storage, bytes);
    linear.storage = storage;
    return storage + padded(bytes);
  };
  switch (pair.weight.kind) {
    case WeightKind::kEmbed: {
      weights_.embedding.data = storage;
      std::byte* const next =
          storage + padded(static_cast<std::size_t>(pair.size_b()) * size_of(weights_.embedding.dtype));
      if (!config().tie_word_embeddings) return next;
      storage = next;
      return own(weights_.head);
    }
    case WeightKind::kLmHead: return own(weights_.head);
    default: {
      const auto group = place_of(pair.site).group;
      FrozenLinear& linear = (weights_.layers[static_cast<std::size_t>(pair.layer)].*group).frozen;
      // One copy serves all parts of a group.
      const bool is_own = linear.storage >= packed_.data() && linear.storage < packed_.data() + packed_.size();
      return is_own ? storage : own(linear);
    }
  }
}

void AdaptedModel::pack_full(const PairInfo& pair) const {
  const EncodedRows values = encoded(factors_ + pair.offset_b, pair.out, pair.in);
  const auto pack_head = [&] { ops_->pack_frozen(weights_.head, 0, 0, values); };
  if (pair.weight.kind == WeightKind::kLmHead) {
    pack_head();
  } else if (pair.weight.kind == WeightKind::kEmbed) {
    if (config().tie_word_embeddings) pack_head();
    ops_->dequantize(values, weights_.embedding);
  } else if (site_of(pair.weight.kind)) {
    const auto [group, part] = place_of(pair.site);
    const AdaptedLinear& linear = weights_.layers[static_cast<std::size_t>(pair.layer)].*group;
    ops_->pack_frozen(linear.frozen, part, 0, values);
  }
}

Tensor AdaptedModel::full_gradient(WeightId weight) const {
  if (adapters_ == nullptr || gradients_.empty()) return {};
  const auto found = adapters_->find(weight);
  if (!found || !adapters_->pairs()[*found].full) return {};
  const PairInfo& pair = adapters_->pairs()[*found];
  return {gradients_.columns(pair.offset_b, pair.size_b()).data, gradients_.dtype, pair.out, pair.in};
}

void AdaptedModel::place_factors(Memory& memory) {
  factors_ = adapters_->factors().data();
  gradients_ = adapters_->gradients();
  if (ops_->storage().on_host()) return;
  const std::size_t factor_bytes = padded(adapters_->factors().size_bytes());
  const std::size_t gradient_bytes = static_cast<std::size_t>(gradients_.size()) * size_of(gradients_.dtype);
  mirror_ = memory.allocate(Scope::kAdapters, factor_bytes + gradient_bytes, "factors and gradients");
  factors_ = mirror_.as<float>();
  if (!gradients_.empty()) gradients_.data = mirror_.data() + factor_bytes;
}

std::size_t AdaptedModel::packed_bytes(const ModelConfig& config, std::span<const PairInfo> pairs, const Ops& ops) {
  std::size_t bytes = 0;
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    LayerWeights layer = shape_of_layer(config, pairs, i);
    for (const auto group : kGroups) {
      AdaptedLinear& linear = layer.*group;
      linear.frozen.spare = spare_columns(config, ops, group, linear.total_rank());
      if (linear.total_rank() > 0) bytes += padded(ops.adapter_bytes(linear));
      const bool has_full = std::any_of(pairs.begin(), pairs.end(), [&](const PairInfo& p) {
        return p.full && p.layer == i && site_of(p.weight.kind) && place_of(p.site).group == group;
      });
      if (has_full) bytes += padded(ops.frozen_bytes(linear.frozen));
    }
  }
  FrozenLinear head;
  head.in = config.hidden_size;
  head.outs = {config.vocab_size};
  for (const PairInfo& p : pairs) {
    const bool is_embedding = p.full && p.weight.kind == WeightKind::kEmbed;
    const bool is_head = p.full && p.weight.kind == WeightKind::kLmHead;
    if (is_embedding) bytes += padded(static_cast<std::size_t>(p.size_b()) * size_of(embedding_type(ops.precision())));
    if (is_head || (is_embedding && config.tie_word_embeddings)) bytes += padded(ops.frozen_bytes(head));
  }
  return bytes;
}

void AdaptedModel::fetch_gradients() const {
  if (gradients_.empty() || ops_->storage().on_host()) return;
  ops_->storage().download(adapters_->gradients().data, gradients_.data,
                           static_cast<std::size_t>(gradients_.size()) * size_of(gradients_.dtype));
}

void AdaptedModel::refresh() {
  const std::span<const float> factors = std::as_const(*adapters_).factors();
  if (!ops_->storage().on_host()) ops_->storage().upload(factors_, factors.data(), factors.size_bytes());
  pack();
}

void AdaptedModel::fetch_factors() {
  if (ops_->storage().on_host()) return;
  const std::span<float> factors = adapters_->factors();
  ops_->storage().download(factors.data(), factors_, factors.size_bytes());
}

std::vector<PackedPair> AdaptedModel::packed_places() const {
  std::vector<PackedPair> places;
  for (const PairInfo& pair : adapters_->pairs()) {
    const auto [group, part] = place_of(pair.site);
    const auto place = ops_->packed_places(weights_.layers[static_cast<std::size_t>(pair.layer)].*group, part);
    if (!place) return {};
    places.push_back(*place);
  }
  return places;
}

void AdaptedModel::pack() {
  std::vector<const AdaptedLinear*> linears;
  for (const LayerWeights& layer : weights_.layers) {
    for (const auto group : kGroups) linears.push_back(&(layer.*group));
  }
  ops_->pack_all_adapters(linears);
  for (const PairInfo& pair : std::as_const(*adapters_).pairs()) {
    if (pair.full) pack_full(pair);
  }
}

}  // namespace lomu

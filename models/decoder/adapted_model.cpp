#include "models/decoder/adapted_model.h"

#include <array>
#include <utility>
#include <vector>

namespace lomu {
namespace {

constexpr std::array kGroups{&LayerWeights::qkv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down};

std::size_t padded(std::size_t bytes) {
  return (bytes + Memory::kAlignment - 1) / Memory::kAlignment * Memory::kAlignment;
}

std::size_t packed_bytes_of(const LayerWeights& layer, const Ops& ops) {
  std::size_t bytes = 0;
  for (const auto group : kGroups) {
    if ((layer.*group).total_rank() > 0) bytes += padded(ops.adapter_bytes(layer.*group));
  }
  return bytes;
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
    if (pair.layer != layer) continue;
    const auto [group, part] = place_of(pair.site);
    (shape.*group).adapters[part].rank = pair.rank;
    (shape.*group).adapters[part].scale = pair.scale;
  }
  return shape;
}

AdaptedModel::AdaptedModel(const ModelWeights& weights, AdapterSet* adapters, const Ops& ops, Memory& memory)
    : weights_(weights), adapters_(adapters), ops_(&ops) {
  if (adapters == nullptr) return;
  place_factors(memory);
  for (const PairInfo& pair : adapters->pairs()) {
    const auto [group, part] = place_of(pair.site);
    Adapter& adapter = (weights_.layers[static_cast<std::size_t>(pair.layer)].*group).adapters[part];
    adapter.rank = pair.rank;
    adapter.scale = pair.scale;
    adapter.a = factors_ + pair.offset_a;
    adapter.b = factors_ + pair.offset_b;
    if (gradients_.empty()) continue;
    adapter.grad_a = gradients_.columns(pair.offset_a, pair.size_a()).data;
    adapter.grad_b = gradients_.columns(pair.offset_b, pair.size_b()).data;
  }
  std::size_t bytes = 0;
  for (const LayerWeights& layer : weights_.layers) bytes += packed_bytes_of(layer, ops);
  packed_ = memory.allocate(Scope::kAdapters, bytes, "packed adapter factors");
  std::byte* next = packed_.data();
  for (LayerWeights& layer : weights_.layers) {
    for (const auto group : kGroups) {
      AdaptedLinear& linear = layer.*group;
      if (linear.total_rank() == 0) continue;
      linear.packed = next;
      next += padded(ops.adapter_bytes(linear));
    }
  }
  refresh();
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
      (layer.*group).frozen.spare = spare_columns(config, ops, group, (layer.*group).total_rank());
    }
    bytes += packed_bytes_of(layer, ops);
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
}

}  // namespace lomu

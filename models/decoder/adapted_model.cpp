#include "models/decoder/adapted_model.h"

#include <array>

namespace lomu {
namespace {

constexpr std::array kGroups{&LayerWeights::qkv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down};

std::size_t padded(std::size_t bytes) {
  return (bytes + Memory::kAlignment - 1) / Memory::kAlignment * Memory::kAlignment;
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
  const Tensor gradients = adapters->gradients();
  for (const PairInfo& pair : adapters->pairs()) {
    const auto [group, part] = place_of(pair.site);
    Adapter& adapter = (weights_.layers[static_cast<std::size_t>(pair.layer)].*group).adapters[part];
    adapter.rank = pair.rank;
    adapter.scale = pair.scale;
    adapter.a = adapters->a(pair).data();
    adapter.b = adapters->b(pair).data();
    if (gradients.empty()) continue;
    adapter.grad_a = gradients.columns(pair.offset_a, pair.size_a()).data;
    adapter.grad_b = gradients.columns(pair.offset_b, pair.size_b()).data;
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
  refresh();
}

std::size_t AdaptedModel::packed_bytes(const ModelConfig& config, std::span<const PairInfo> pairs, const Ops& ops) {
  std::size_t bytes = 0;
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    const LayerWeights layer = shape_of_layer(config, pairs, i);
    for (const auto group : kGroups) {
      if ((layer.*group).total_rank() > 0) bytes += padded(ops.adapter_bytes(layer.*group));
    }
  }
  return bytes;
}

void AdaptedModel::refresh() {
  for (const LayerWeights& layer : weights_.layers) {
    for (const auto group : kGroups) {
      if ((layer.*group).total_rank() > 0) ops_->pack_adapters(layer.*group);
    }
  }
}

}  // namespace lomu

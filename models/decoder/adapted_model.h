// Frozen weights with their adapters attached, and with the weights that are trained in full in place of frozen ones:
// what training, evaluation and generation run. Keeps the factors where the backend works and in the form that its
// operations like; they must be refreshed when an optimizer has moved them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/decoder/adapter_set.h"
#include "models/decoder/weights.h"

namespace lomu {

/// The shapes of one block with its adapters' ranks, without any memory behind them: what plans are made from.
LayerWeights shape_of_layer(const ModelConfig& config, std::span<const PairInfo> pairs, std::int64_t layer);

class AdaptedModel {
 public:
  /// `adapters` may be null: the base model. Everything passed in outlives this object. Packs the factors. Throws
  /// UnsupportedError when a weight is trained in full and the backend cannot do that.
  AdaptedModel(const ModelWeights& weights, AdapterSet* adapters, const Ops& ops, Memory& memory);

  /// Bytes of packed factors and full weights that the constructor allocates in Scope::kAdapters on weights with room
  /// for these pairs (WeightsLayout).
  static std::size_t packed_bytes(const ModelConfig& config, std::span<const PairInfo> pairs, const Ops& ops);

  /// Takes over all factors. Call after every change of AdapterSet::factors() and before the next forward.
  void refresh();
  /// Where the factors lie that it computes with: flat, as AdapterSet::factors(), in the backend's storage. Whoever
  /// changes them there calls pack() before the next forward.
  [[nodiscard]] float* factors() const { return factors_; }
  void pack();
  /// In pair order, where an optimizer may write what pack() writes after the first time (Ops::packed_places); empty if
  /// it cannot.
  [[nodiscard]] std::vector<PackedPair> packed_places() const;
  /// Brings the factors to AdapterSet::factors(), unless they are there.
  void fetch_factors();
  /// Where backward writes: flat, as AdapterSet::gradients(), in the backend's storage. Empty without gradients.
  [[nodiscard]] const Tensor& gradients() const { return gradients_; }
  /// The part of it that belongs to a weight trained in full, [out, in]; empty for any other weight.
  [[nodiscard]] Tensor full_gradient(WeightId weight) const;
  /// Brings them to AdapterSet::gradients(), unless they are there.
  void fetch_gradients() const;

  [[nodiscard]] const ModelWeights& weights() const { return weights_; }
  [[nodiscard]] const ModelConfig& config() const { return weights_.config; }
  [[nodiscard]] AdapterSet* adapters() const { return adapters_; }

 private:
  void place_factors(Memory& memory);
  void attach_pair(const PairInfo& pair);
  /// Puts the model's own copy of a weight, and of what is packed with it, in place of the frozen one; returns what
  /// follows `storage`, where the copy lies.
  std::byte* attach_full(const PairInfo& pair, std::byte* storage);
  void pack_full(const PairInfo& pair) const;

  ModelWeights weights_;
  AdapterSet* adapters_;
  const Ops* ops_;
  Buffer mirror_;  ///< of factors and gradients, where the backend cannot reach those of the AdapterSet
  float* factors_ = nullptr;
  Tensor gradients_;
  Buffer packed_;
};

}  // namespace lomu

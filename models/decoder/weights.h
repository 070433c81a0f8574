// The frozen weights of a decoder in memory: where each group lies in one region, how the region is filled from model
// files, and how it is read. One region, so that one rank of a machine can fill it and all of them map it. Not the
// adapters (adapter_set.h), and not the files (models/files).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "kernels/tensor.h"
#include "models/decoder/adapter_set.h"
#include "models/files/model_config.h"
#include "models/files/names.h"

namespace lomu {

class ModelFiles;

/// One block. Linear groups share their input; each part of a group may carry an adapter (see adapted_model.h).
struct LayerWeights {
  const float* attn_norm = nullptr;  ///< [hidden]
  AdaptedLinear qkv;                 ///< q | k | v
  const float* q_norm = nullptr;     ///< [head_dim], null without q/k norm
  const float* k_norm = nullptr;
  AdaptedLinear o;
  const float* mlp_norm = nullptr;  ///< [hidden]
  AdaptedLinear gate_up;            ///< gate | up
  AdaptedLinear down;
};

/// Views of a filled region. Owns nothing: the region outlives it.
struct ModelWeights {
  ModelConfig config;
  Tensor embedding;  ///< [vocab, hidden] bf16 in bf16 precision, else f32
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  ///< [hidden]
  FrozenLinear head;                  ///< [vocab, hidden]; packed by itself also where it is tied to the embedding
};

/// Which group of a layer holds a site, and as which part.
struct SitePlace {
  AdaptedLinear LayerWeights::*group;
  std::size_t part;
};
SitePlace place_of(Site site);

/// Whether any part of a group has a bias.
bool has_bias(const ModelConfig& config, AdaptedLinear LayerWeights::*group);

/// Element type of the embedding table.
DType embedding_type(const Precision& precision);

/// Ops::spare_columns for a group of a layer whose adapters' ranks add up to `rank`.
std::int64_t spare_columns(const ModelConfig& config, const Ops& ops, AdaptedLinear LayerWeights::*group,
                           std::int64_t rank);

class WeightsLayout {
 public:
  /// `training`: also pack what the backward pass multiplies by (Ops decides what that costs). `pairs`: the adapters
  /// that will be attached, for which room is left beside the weights where the backend has a use for it. Others can be
  /// attached too, and compute a little slower; but of a model without base the full weights must be among them.
  WeightsLayout(const ModelConfig& config, const Ops& ops, bool training, std::span<const PairInfo> pairs = {});

  /// Size of the region; it must be 64-byte aligned.
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

  /// `region` lies in Ops::storage(), and `memory` is a ledger of that. Sends every weight there once as it is stored
  /// and packs it, `threads` row ranges at a time; needs besides the region, while it runs, up to 2 MB a thread; on a
  /// device 8 MB there. `files` must have the configuration that the layout was made for. Throws what
  /// ModelFiles::encoded_rows throws, and MemoryError.
  void fill(std::span<std::byte> region, const ModelFiles& files, const Ops& ops, int threads, Memory& memory) const;

  /// Views into a filled region, which may be a read-only mapping: nothing writes through them, but where room was left
  /// for factors, Ops::pack_adapters.
  [[nodiscard]] ModelWeights bind(const std::byte* region) const;

 private:
  /// A frozen group and the weights its parts come from. `linear.storage` is null here: the offset counts.
  struct Group {
    FrozenLinear linear;
    std::vector<WeightId> parts;
    std::vector<bool> absent;  ///< parts without a frozen weight (ModelConfig::without_base)
    std::size_t offset = 0;
  };
  /// A norm or bias, kept in f32.
  struct Vector {
    WeightId id;
    std::int64_t size = 0;
    std::size_t offset = 0;
  };
  struct Task;

  std::size_t reserve(std::size_t bytes);
  void add_group(std::vector<WeightId> parts, bool training, const Ops& ops, std::span<const PairInfo> pairs);
  void add_vector(WeightId id);
  [[nodiscard]] AdaptedLinear bind_group(const std::byte* region, std::size_t index) const;
  [[nodiscard]] const float* bind_vector(const std::byte* region, WeightId id) const;
  /// Of about `elements` each.
  [[nodiscard]] std::vector<Task> tasks(std::int64_t elements) const;

  ModelConfig config_;
  DType embedding_dtype_;
  std::size_t embedding_offset_ = 0;
  std::vector<Group> groups_;    ///< four a layer (qkv, o, gate|up, down), then the head
  std::vector<Vector> vectors_;  ///< sorted by id
  std::size_t bytes_ = 0;
};

}  // namespace lomu

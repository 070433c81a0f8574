// The trainable part of a run: the LoRA pairs of all sites, and the weights that are trained in full, in one flat
// buffer of factors and one of gradients, in the order in which backward finishes them. Optimizers, reductions and
// checkpoints work on these flat ranges by PairInfo. Not the arithmetic of a site (kernels/ops.h), not the folder on
// disk (models/files/peft_adapter.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/files/model_config.h"
#include "models/files/names.h"
#include "models/files/peft_adapter.h"

namespace lomu {

class ModelFiles;

/// How a new adapter starts.
enum class AdapterInit : std::uint8_t {
  /// PEFT's default: lora_A uniform in +-1/sqrt(in), lora_B zero. The adapted model equals the base.
  kZero,
  /// Both factors orthonormal times the same number, so that the product is small but not zero: see adapter_init.h
  /// for its size. The adapted model differs a little from the base at step 0, and no optimizer needs damping.
  kBalanced,
};

struct AdapterOptions {
  std::int64_t rank = 16;
  double alpha = 32;
  bool rslora = false;  ///< scale alpha / sqrt(rank) instead of alpha / rank
  double dropout = 0;   ///< on the adapter's input, in [0, 1)
  std::vector<Site> targets{kAllSites.begin(), kAllSites.end()};
  std::optional<std::vector<std::int64_t>> layers;  ///< none: every layer
  AdapterInit init = AdapterInit::kZero;
  /// Left factors start this much larger and right ones as much smaller: the product is the same. For studies of
  /// optimizers that should not notice.
  double gauge = 1;
  std::vector<WeightKind> full;  ///< trained themselves instead of through a pair, in every layer
  std::uint64_t seed = 0;
};

/// One pair, or one weight trained in full: its place in the model and in the flat buffers (offsets in elements).
/// A full weight is a pair with a left factor alone: [out, in] at offset_b, rank = in, scale 1.
struct PairInfo {
  std::string name;        ///< "model.layers.3.self_attn.q_proj"
  WeightId weight;         ///< the weight it adapts or is
  bool full = false;       ///< trained in full
  std::int64_t layer = 0;  ///< of the weight, as weight.layer
  Site site = Site::kQ;    ///< of a pair
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t rank = 0;
  double alpha = 0;
  double scale = 0;
  std::int64_t offset_a = 0;  ///< right factor, lora_A [rank, in]
  std::int64_t offset_b = 0;  ///< left factor, lora_B [out, rank]; follows lora_A
  [[nodiscard]] std::int64_t size_a() const { return full ? 0 : rank * in; }
  [[nodiscard]] std::int64_t size_b() const { return out * rank; }
};

/// The pairs and full weights that these options give a model, in backward order: head, final norm, the layers from the
/// last, the embedding; inside a layer down, up, gate, their norm, o, the norms of k and q, v, k, q, their norm.
/// Throws UsageError: nothing to train, a layer the model does not have, a rank outside 1 ... 256, impossible alpha or
/// dropout, a weight that is to be trained both ways, or that is no matrix or norm of this model.
std::vector<PairInfo> plan_pairs(const ModelConfig& config, const AdapterOptions& options);
/// The pairs of an adapter that was read from disk, in the same order.
std::vector<PairInfo> plan_pairs(const ModelConfig& config, const AdapterFile& file);

/// Elements of a flat buffer with these pairs.
std::int64_t flat_size(std::span<const PairInfo> pairs);

/// Bytes that an AdapterSet with these pairs allocates in Scope::kAdapters.
std::size_t adapter_set_bytes(std::span<const PairInfo> pairs, std::optional<DType> gradient);

class AdapterSet {
 public:
  /// A new adapter. `gradient`: element type of the gradient buffer (Precision::gradient), or none for an adapter that
  /// is only used. `files` is read for full weights, which start as they are there, and for kBalanced (the size of the
  /// frozen weights).
  AdapterSet(const ModelConfig& config, const AdapterOptions& options, const ModelFiles& files,
             std::optional<DType> gradient, Memory& memory);
  /// The adapter of a PEFT folder.
  AdapterSet(const ModelConfig& config, const AdapterFile& file, std::optional<DType> gradient, Memory& memory);

  [[nodiscard]] std::span<const PairInfo> pairs() const { return pairs_; }
  /// Index of the pair or full weight of this weight; none where it is frozen.
  [[nodiscard]] std::optional<std::size_t> find(WeightId weight) const;
  /// Whether any weight is trained in full.
  [[nodiscard]] bool has_full() const;

  /// All factors, [lora_A | lora_B] pair by pair. Whoever changes them calls AdaptedModel::refresh() before the next
  /// use.
  [[nodiscard]] std::span<float> factors() { return {factors_.as<float>(), size_}; }
  [[nodiscard]] std::span<const float> factors() const { return {factors_.as<float>(), size_}; }
  [[nodiscard]] std::span<float> a(const PairInfo& p) { return range(p.offset_a, p.size_a()); }
  [[nodiscard]] std::span<float> b(const PairInfo& p) { return range(p.offset_b, p.size_b()); }
  [[nodiscard]] std::span<const float> a(const PairInfo& p) const { return range(p.offset_a, p.size_a()); }
  [[nodiscard]] std::span<const float> b(const PairInfo& p) const { return range(p.offset_b, p.size_b()); }

  /// All gradients, laid out as the factors: [1, flat size] f32 or f64. Empty without gradients.
  [[nodiscard]] Tensor gradients() const;
  [[nodiscard]] double dropout() const { return dropout_; }
  [[nodiscard]] bool rslora() const { return rslora_; }

  /// Name of the first pair whose gradient holds NaN or infinity.
  [[nodiscard]] std::optional<std::string> first_nonfinite_gradient() const;

  /// As a PEFT folder holds it. `base_model` is what its configuration will name.
  [[nodiscard]] AdapterFile to_file(std::string base_model) const;

 private:
  void allocate(std::optional<DType> gradient, Memory& memory);
  [[nodiscard]] std::span<float> range(std::int64_t offset, std::int64_t size) const {
    return {factors_.as<float>() + offset, static_cast<std::size_t>(size)};
  }

  std::vector<PairInfo> pairs_;
  std::size_t size_ = 0;
  double dropout_ = 0;
  bool rslora_ = false;
  Buffer factors_;
  Buffer gradients_;
  DType gradient_dtype_ = DType::kF32;
};

}  // namespace lomu

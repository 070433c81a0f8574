// The one name registry: engine weight <-> Hugging Face name <-> GGUF name <-> LoRA site <-> PEFT name <-> shape.
// Loader, exporter, planner and checkpoint all read it. It knows no files and holds no data.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/files/model_config.h"

namespace lomu {

/// Every weight a decoder can have. Those from kAttnNorm on exist once a layer.
enum class WeightKind : std::uint8_t {
  kEmbed,
  kFinalNorm,
  kLmHead,
  kAttnNorm,
  kQ,
  kK,
  kV,
  kO,
  kQBias,
  kKBias,
  kVBias,
  kOBias,
  kQNorm,
  kKNorm,
  kMlpNorm,
  kGate,
  kUp,
  kDown,
  kGateBias,
  kUpBias,
  kDownBias,
};

/// One weight of one model. `layer` is 0 for the three that are not in a layer.
struct WeightId {
  WeightKind kind = WeightKind::kEmbed;
  std::int64_t layer = 0;
  auto operator<=>(const WeightId&) const = default;
};

/// Row-major [rows, cols]; a projection is [out, in]. A vector (norm, bias) is one row, and `vector` is true.
struct WeightShape {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  bool vector = false;
  [[nodiscard]] std::int64_t size() const { return rows * cols; }
  [[nodiscard]] std::vector<std::int64_t> dims() const;  ///< as Hugging Face stores it: [rows, cols] or [cols]
  bool operator==(const WeightShape&) const = default;
};

/// A linear layer that can carry an adapter.
enum class Site : std::uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr std::array kAllSites{Site::kQ, Site::kK, Site::kV, Site::kO, Site::kGate, Site::kUp, Site::kDown};

/// The two factors of a pair, by PEFT's names: A [r, in] is the right factor, B [out, r] the left one.
enum class Factor : std::uint8_t { kA, kB };

/// A factor of a pair, as PEFT names it.
struct FactorId {
  std::int64_t layer = 0;
  Site site = Site::kQ;
  Factor factor = Factor::kA;
  auto operator<=>(const FactorId&) const = default;
};

bool is_per_layer(WeightKind kind);

/// "model.layers.3.self_attn.q_proj.weight"
std::string hf_name(WeightId id);
std::optional<WeightId> parse_hf_name(std::string_view name);

/// "blk.3.attn_q.weight"
std::string gguf_name(WeightId id);
std::optional<WeightId> parse_gguf_name(std::string_view name);

/// The shape a weight must have in this model.
WeightShape shape_of(const ModelConfig& config, WeightId id);

/// Every weight this model has, in the order of the forward pass: embedding, layers, final norm, head (unless tied).
std::vector<WeightId> weights_of(const ModelConfig& config);

/// Parameters of the model, a tied head counted once.
std::int64_t parameter_count(const ModelConfig& config);

/// "q", "k", "v", "o", "gate", "up", "down": the spelling of YAML.
std::string_view name_of(Site site);
/// Accepts "q" and "q_proj".
std::optional<Site> parse_site(std::string_view name);
/// "q_proj": the leaf that PEFT's target_modules lists.
std::string_view module_leaf(Site site);
/// "model.layers.3.self_attn.q_proj": what PEFT matches its patterns against.
std::string module_path(std::int64_t layer, Site site);
/// The frozen weight under the adapter, and its bias.
WeightId weight_of(std::int64_t layer, Site site);
WeightId bias_of(std::int64_t layer, Site site);
std::optional<Site> site_of(WeightKind kind);
/// Whether this model's layer has a bias there.
bool has_bias(const ModelConfig& config, Site site);

/// "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight": the key in adapter_model.safetensors.
std::string peft_name(FactorId id);
std::optional<FactorId> parse_peft_name(std::string_view name);
/// "base_model.model.lm_head.weight": the key there of a weight that was trained in full (PEFT's modules_to_save).
std::string peft_name(WeightId id);
std::optional<WeightId> parse_peft_full_name(std::string_view name);
/// "lm_head", "embed_tokens", "input_layernorm": what PEFT's modules_to_save calls the module of a weight.
std::string full_module_leaf(WeightId id);

}  // namespace lomu

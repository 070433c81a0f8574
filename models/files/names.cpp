#include "models/files/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace lomu {
namespace {

// How a weight's shape follows from the configuration.
enum class ShapeRule : std::uint8_t {
  kVocabHidden,
  kHidden,
  kHeadDim,
  kQHidden,
  kKvHidden,
  kHiddenQ,
  kQVector,
  kKvVector,
  kFfHidden,
  kHiddenFf,
  kFfVector,
};

// The registry. In a layer the names follow "model.layers.N." and "blk.N.".
struct Row {
  WeightKind kind;
  bool per_layer;
  std::string_view hf;
  std::string_view gguf;
  ShapeRule shape;
};
using enum WeightKind;
constexpr std::array kRows{
    Row{kEmbed, false, "model.embed_tokens.weight", "token_embd.weight", ShapeRule::kVocabHidden},
    Row{kFinalNorm, false, "model.norm.weight", "output_norm.weight", ShapeRule::kHidden},
    Row{kLmHead, false, "lm_head.weight", "output.weight", ShapeRule::kVocabHidden},
    Row{kAttnNorm, true, "input_layernorm.weight", "attn_norm.weight", ShapeRule::kHidden},
    Row{kQ, true, "self_attn.q_proj.weight", "attn_q.weight", ShapeRule::kQHidden},
    Row{kK, true, "self_attn.k_proj.weight", "attn_k.weight", ShapeRule::kKvHidden},
    Row{kV, true, "self_attn.v_proj.weight", "attn_v.weight", ShapeRule::kKvHidden},
    Row{kO, true, "self_attn.o_proj.weight", "attn_output.weight", ShapeRule::kHiddenQ},
    Row{kQBias, true, "self_attn.q_proj.bias", "attn_q.bias", ShapeRule::kQVector},
    Row{kKBias, true, "self_attn.k_proj.bias", "attn_k.bias", ShapeRule::kKvVector},
    Row{kVBias, true, "self_attn.v_proj.bias", "attn_v.bias", ShapeRule::kKvVector},
    Row{kOBias, true, "self_attn.o_proj.bias", "attn_output.bias", ShapeRule::kHidden},
    Row{kQNorm, true, "self_attn.q_norm.weight", "attn_q_norm.weight", ShapeRule::kHeadDim},
    Row{kKNorm, true, "self_attn.k_norm.weight", "attn_k_norm.weight", ShapeRule::kHeadDim},
    Row{kMlpNorm, true, "post_attention_layernorm.weight", "ffn_norm.weight", ShapeRule::kHidden},
    Row{kGate, true, "mlp.gate_proj.weight", "ffn_gate.weight", ShapeRule::kFfHidden},
    Row{kUp, true, "mlp.up_proj.weight", "ffn_up.weight", ShapeRule::kFfHidden},
    Row{kDown, true, "mlp.down_proj.weight", "ffn_down.weight", ShapeRule::kHiddenFf},
    Row{kGateBias, true, "mlp.gate_proj.bias", "ffn_gate.bias", ShapeRule::kFfVector},
    Row{kUpBias, true, "mlp.up_proj.bias", "ffn_up.bias", ShapeRule::kFfVector},
    Row{kDownBias, true, "mlp.down_proj.bias", "ffn_down.bias", ShapeRule::kHidden},
};

struct SiteRow {
  Site site;
  std::string_view name;
  std::string_view leaf;
  std::string_view module;  // after "model.layers.N."
  WeightKind weight;
  WeightKind bias;
};
constexpr std::array kSites{
    SiteRow{Site::kQ, "q", "q_proj", "self_attn.q_proj", kQ, kQBias},
    SiteRow{Site::kK, "k", "k_proj", "self_attn.k_proj", kK, kKBias},
    SiteRow{Site::kV, "v", "v_proj", "self_attn.v_proj", kV, kVBias},
    SiteRow{Site::kO, "o", "o_proj", "self_attn.o_proj", kO, kOBias},
    SiteRow{Site::kGate, "gate", "gate_proj", "mlp.gate_proj", kGate, kGateBias},
    SiteRow{Site::kUp, "up", "up_proj", "mlp.up_proj", kUp, kUpBias},
    SiteRow{Site::kDown, "down", "down_proj", "mlp.down_proj", kDown, kDownBias},
};

constexpr bool rows_follow_the_enums() {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<std::size_t>(kRows[i].kind) != i) return false;
  }
  for (std::size_t i = 0; i < kSites.size(); ++i) {
    if (static_cast<std::size_t>(kSites[i].site) != i || kAllSites[i] != kSites[i].site) return false;
  }
  return true;
}
static_assert(rows_follow_the_enums());

const Row& row(WeightKind kind) {
  return kRows[static_cast<std::size_t>(kind)];
}
const SiteRow& row(Site site) {
  return kSites[static_cast<std::size_t>(site)];
}

constexpr std::string_view kHfLayer = "model.layers.";
constexpr std::string_view kGgufLayer = "blk.";
constexpr std::string_view kPeftRoot = "base_model.model.";

struct LayerName {
  std::int64_t layer;
  std::string_view rest;
};

// "model.layers.12.mlp.up_proj.weight" -> 12, "mlp.up_proj.weight". Layer numbers are written without leading zeros.
std::optional<LayerName> split_layer(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  std::int64_t layer = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), layer);
  const auto digits = static_cast<std::size_t>(parsed.ptr - name.data());
  if (parsed.ec != std::errc() || layer < 0 || (digits > 1 && name.front() == '0') || name.front() == '-') {
    return std::nullopt;
  }
  if (digits >= name.size() || name[digits] != '.') return std::nullopt;
  return LayerName{layer, name.substr(digits + 1)};
}

std::optional<WeightId> parse(std::string_view name, std::string_view layer_prefix, std::string_view Row::*spelling) {
  const auto in_layer = split_layer(name, layer_prefix);
  const std::string_view rest = in_layer ? in_layer->rest : name;
  for (const Row& r : kRows) {
    if (r.per_layer == in_layer.has_value() && r.*spelling == rest)
      return WeightId{r.kind, in_layer ? in_layer->layer : 0};
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::int64_t> WeightShape::dims() const {
  return vector ? std::vector{cols} : std::vector{rows, cols};
}

bool is_per_layer(WeightKind kind) {
  return row(kind).per_layer;
}

std::string hf_name(WeightId id) {
  const Row& r = row(id.kind);
  return r.per_layer ? fmt::format("{}{}.{}", kHfLayer, id.layer, r.hf) : std::string(r.hf);
}

std::optional<WeightId> parse_hf_name(std::string_view name) {
  return parse(name, kHfLayer, &Row::hf);
}

std::string gguf_name(WeightId id) {
  const Row& r = row(id.kind);
  return r.per_layer ? fmt::format("{}{}.{}", kGgufLayer, id.layer, r.gguf) : std::string(r.gguf);
}

std::optional<WeightId> parse_gguf_name(std::string_view name) {
  return parse(name, kGgufLayer, &Row::gguf);
}

WeightShape shape_of(const ModelConfig& config, WeightId id) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t ff = config.intermediate_size;
  switch (row(id.kind).shape) {
    case ShapeRule::kVocabHidden: return {config.vocab_size, hidden, false};
    case ShapeRule::kHidden: return {1, hidden, true};
    case ShapeRule::kHeadDim: return {1, config.head_dim, true};
    case ShapeRule::kQHidden: return {config.q_size(), hidden, false};
    case ShapeRule::kKvHidden: return {config.kv_size(), hidden, false};
    case ShapeRule::kHiddenQ: return {hidden, config.q_size(), false};
    case ShapeRule::kQVector: return {1, config.q_size(), true};
    case ShapeRule::kKvVector: return {1, config.kv_size(), true};
    case ShapeRule::kFfHidden: return {ff, hidden, false};
    case ShapeRule::kHiddenFf: return {hidden, ff, false};
    case ShapeRule::kFfVector: return {1, ff, true};
  }
  return {};
}

std::vector<WeightId> weights_of(const ModelConfig& config) {
  std::vector<WeightId> weights{{kEmbed, 0}};
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const auto add = [&](bool present, std::initializer_list<WeightKind> kinds) {
      if (!present) return;
      for (const WeightKind kind : kinds) weights.push_back({kind, layer});
    };
    add(true, {kAttnNorm, kQ, kK, kV});
    add(config.qkv_bias, {kQBias, kKBias, kVBias});
    add(config.qk_norm, {kQNorm, kKNorm});
    add(true, {kO});
    add(config.o_bias, {kOBias});
    add(true, {kMlpNorm, kGate, kUp});
    add(config.mlp_bias, {kGateBias, kUpBias});
    add(true, {kDown});
    add(config.mlp_bias, {kDownBias});
  }
  weights.push_back({kFinalNorm, 0});
  if (!config.tie_word_embeddings) weights.push_back({kLmHead, 0});
  return weights;
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t count = 0;
  for (const WeightId id : weights_of(config)) count += shape_of(config, id).size();
  return count;
}

std::string_view name_of(Site site) {
  return row(site).name;
}

std::optional<Site> parse_site(std::string_view name) {
  const auto it =
      std::find_if(kSites.begin(), kSites.end(), [&](const SiteRow& r) { return r.name == name || r.leaf == name; });
  if (it == kSites.end()) return std::nullopt;
  return it->site;
}

std::string_view module_leaf(Site site) {
  return row(site).leaf;
}

std::string module_path(std::int64_t layer, Site site) {
  return fmt::format("{}{}.{}", kHfLayer, layer, row(site).module);
}

WeightId weight_of(std::int64_t layer, Site site) {
  return {row(site).weight, layer};
}
WeightId bias_of(std::int64_t layer, Site site) {
  return {row(site).bias, layer};
}

std::optional<Site> site_of(WeightKind kind) {
  const auto it = std::find_if(kSites.begin(), kSites.end(), [&](const SiteRow& r) { return r.weight == kind; });
  if (it == kSites.end()) return std::nullopt;
  return it->site;
}

bool has_bias(const ModelConfig& config, Site site) {
  switch (site) {
    case Site::kQ:
    case Site::kK:
    case Site::kV: return config.qkv_bias;
    case Site::kO: return config.o_bias;
    default: return config.mlp_bias;
  }
}

std::string peft_name(FactorId id) {
  return fmt::format("{}{}.lora_{}.weight", kPeftRoot, module_path(id.layer, id.site),
                     id.factor == Factor::kA ? 'A' : 'B');
}

std::optional<FactorId> parse_peft_name(std::string_view name) {
  if (!name.starts_with(kPeftRoot)) return std::nullopt;
  const auto in_layer = split_layer(name.substr(kPeftRoot.size()), kHfLayer);
  if (!in_layer) return std::nullopt;
  for (const SiteRow& r : kSites) {
    if (!in_layer->rest.starts_with(r.module)) continue;
    const std::string_view tail = in_layer->rest.substr(r.module.size());
    if (tail == ".lora_A.weight") return FactorId{in_layer->layer, r.site, Factor::kA};
    if (tail == ".lora_B.weight") return FactorId{in_layer->layer, r.site, Factor::kB};
  }
  return std::nullopt;
}

std::string peft_name(WeightId id) {
  return std::string(kPeftRoot) + hf_name(id);
}

std::optional<WeightId> parse_peft_full_name(std::string_view name) {
  if (!name.starts_with(kPeftRoot)) return std::nullopt;
  return parse_hf_name(name.substr(kPeftRoot.size()));
}

std::string full_module_leaf(WeightId id) {
  const std::string name = hf_name(id);
  const std::size_t end = name.rfind('.');
  const std::size_t begin = name.rfind('.', end - 1);
  return begin == std::string::npos ? name.substr(0, end) : name.substr(begin + 1, end - begin - 1);
}

}  // namespace lomu

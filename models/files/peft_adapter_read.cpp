// read_peft_adapter: adapter_config.json and adapter_model.safetensors as PEFT 0.21 and older save them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "kernels/error.h"
#include "models/files/json_value.h"
#include "models/files/peft_adapter.h"
#include "models/files/peft_pattern.h"
#include "models/files/safetensors.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

// Keys that are read below, or that say nothing about what the adapter computes. (velora_config and eva_config concern
// training only; qalora_group_size and megatron_core have defaults that mean nothing by themselves.)
constexpr std::array<std::string_view, 30> kKnownKeys{
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
    "velora_config",
};

[[noreturn]] void refuse(std::string_view feature, const JsonFields& fields) {
  throw UnsupportedError(fmt::format("PEFT feature {}: not implemented", feature), fields.where(),
                         "plain LoRA on q, k, v, o, gate, up and down is read");
}

bool is_off(const JsonValue& value) {
  if (value.is_null()) return true;
  if (const bool* b = value.if_bool()) return !*b;
  if (const auto* list = value.if_array()) return list->empty();
  if (const auto* object = value.if_object()) return object->empty();
  return false;
}

// A key that is not known and not off may change what the adapter computes: use_dora, kasa_config, or
// one that PEFT will add.
void refuse_other_features(const JsonValue& document, const JsonFields& fields) {
  for (const auto& [key, value] : *document.if_object()) {
    const bool known = std::find(kKnownKeys.begin(), kKnownKeys.end(), key) != kKnownKeys.end();
    if (!known && !is_off(value)) refuse(key, fields);
  }
  const std::string type = fields.string("peft_type").value_or("missing");
  if (type != "LORA") refuse(fmt::format("peft_type \"{}\"", type), fields);
  const std::string task = fields.string("task_type").value_or("CAUSAL_LM");
  if (task != "CAUSAL_LM") refuse(fmt::format("task_type \"{}\"", task), fields);
  if (fields.string("bias").value_or("none") != "none") refuse("bias other than none", fields);
  if (fields.boolean("fan_in_fan_out").value_or(false)) refuse("fan_in_fan_out", fields);
  // These starts leave the base weights as they are; the others (pissa, olora, loftq, ...) changed them, and the
  // adapter is only right on top of those.
  const JsonValue* init = fields.find("init_lora_weights");
  if (init != nullptr && init->if_string() != nullptr) {
    const std::string& name = *init->if_string();
    if (name != "gaussian" && name != "eva" && name != "orthogonal") {
      refuse(fmt::format("init_lora_weights \"{}\"", name), fields);
    }
  }
}

ModuleFilter::Names read_names(const JsonFields& fields, std::string_view key) {
  ModuleFilter::Names names;
  if (!fields.has(key)) return names;
  if (fields.find(key)->if_string() != nullptr) {
    names.regex = fields.string(key);
  } else {
    names.suffixes = *fields.strings(key);
  }
  return names;
}

ModuleFilter read_filter(const JsonFields& fields, const ModelConfig& config) {
  ModuleFilter filter;
  filter.target = read_names(fields, "target_modules");
  filter.exclude = read_names(fields, "exclude_modules");
  filter.layers = fields.integers("layers_to_transform");
  if (fields.has("layers_pattern")) {
    const ModuleFilter::Names pattern = read_names(fields, "layers_pattern");
    const auto& list = pattern.suffixes;
    const bool plain = pattern.regex
                           ? (pattern.regex->empty() || *pattern.regex == "layers")
                           : std::all_of(list.begin(), list.end(), [](const auto& p) { return p == "layers"; });
    if (!plain) refuse("layers_pattern", fields);
  }
  if (!filter.target.regex && filter.target.suffixes.empty())
    fields.wrong("target_modules", "a list of names or a pattern");
  // A name that no projection has is another kind of layer: the embedding, the head, a norm.
  for (const std::string& name : filter.target.suffixes) {
    bool found = false;
    for (std::int64_t layer = 0; layer < config.num_layers && !found; ++layer) {
      found = std::any_of(kAllSites.begin(), kAllSites.end(), [&](Site site) {
        return names_module({std::nullopt, {name}}, module_path(layer, site), fields.where());
      });
    }
    if (!found) refuse(fmt::format("an adapter on \"{}\"", name), fields);
  }
  return filter;
}

std::vector<std::pair<std::string, double>> read_pattern(const JsonFields& fields, std::string_view key) {
  std::vector<std::pair<std::string, double>> pattern;
  const auto object = fields.object(key);
  if (!object) return pattern;
  for (const auto& [name, value] : *fields.find(key)->if_object()) {
    const auto number = value.if_number();
    if (!number) object->wrong(name, "a number");
    pattern.emplace_back(name, *number);
  }
  return pattern;
}

std::int64_t rank_of(double r, std::string_view module, const std::string& where) {
  if (r >= 1 && r <= 1 << 20 && r == std::floor(r)) return static_cast<std::int64_t>(r);
  throw FormatError(fmt::format("the rank of {} is {}; it must be a positive integer", module, r), where);
}

struct FactorShapes {
  std::vector<std::int64_t> a;
  std::vector<std::int64_t> b;
};

FactorShapes shapes_of(const ModelConfig& config, std::int64_t layer, Site site, std::int64_t r) {
  const WeightShape weight = shape_of(config, weight_of(layer, site));
  return {{r, weight.cols}, {weight.rows, r}};
}

std::vector<float> read_factor(const SafetensorsFile& file, FactorId id, const std::vector<std::int64_t>& shape) {
  const std::string name = peft_name(id);
  const SafetensorInfo* info = file.find(name);
  const std::string where = fmt::format("{}: {}", file.path().string(), name);
  if (info == nullptr) {
    throw FormatError("adapter_config.json targets this module, but the tensor is missing", where);
  }
  if (info->shape != shape) {
    throw FormatError(fmt::format("its shape is [{}], but model and rank give [{}]", fmt::join(info->shape, ", "),
                                  fmt::join(shape, ", ")),
                      where, "the adapter is of another model, or its rank is not what adapter_config.json says");
  }
  std::vector<float> values(static_cast<std::size_t>(info->elements));
  file.read_f32(*info, 0, values);
  return values;
}

/// Whether modules_to_save names the module of a weight. PEFT compares ends of names.
bool is_saved_whole(const std::vector<std::string>& modules, WeightId id) {
  const std::string name = hf_name(id);
  const std::string_view module = std::string_view(name).substr(0, name.rfind('.'));
  return std::any_of(modules.begin(), modules.end(), [&](const std::string& end) { return module.ends_with(end); });
}

/// Of a model whose head is its embedding, PEFT saves both under their names: they are one weight here.
void join_tied_head(std::vector<FullWeight>& full, const JsonFields& fields) {
  const auto of_kind = [&](WeightKind kind) {
    return std::find_if(full.begin(), full.end(), [&](const FullWeight& f) { return f.weight.kind == kind; });
  };
  const auto head = of_kind(WeightKind::kLmHead);
  const auto embedding = of_kind(WeightKind::kEmbed);
  if (head == full.end() && embedding == full.end()) return;
  if (head == full.end() || embedding == full.end() || head->values != embedding->values) {
    throw UnsupportedError("an embedding and a head of their own on a model where they are one", fields.where(),
                           "both must be saved, and be equal");
  }
  full.erase(head);
}

/// Weights that replace the model's own.
std::vector<FullWeight> read_full_weights(const SafetensorsFile& file, const JsonFields& fields,
                                          const ModelConfig& config) {
  std::vector<FullWeight> full;
  const std::vector<std::string> modules =
      fields.has("modules_to_save") ? *fields.strings("modules_to_save") : std::vector<std::string>{};
  std::vector<WeightId> known = weights_of(config);
  if (config.tie_word_embeddings) known.push_back({WeightKind::kLmHead, 0});
  for (const SafetensorInfo& info : file.tensors()) {
    const auto id = parse_peft_full_name(info.name);
    if (!id || parse_peft_name(info.name)) continue;
    const std::string where = fmt::format("{}: {}", file.path().string(), info.name);
    if (std::find(known.begin(), known.end(), *id) == known.end() || info.shape != shape_of(config, *id).dims()) {
      throw FormatError("the model has no such weight, or it has another shape", where,
                        "the adapter is of another model");
    }
    if (!is_saved_whole(modules, *id)) {
      throw FormatError("modules_to_save in adapter_config.json does not name this module", where);
    }
    if (shape_of(config, *id).vector && hf_name(*id).ends_with(".bias")) {
      throw UnsupportedError("a bias that replaces the model's", where);
    }
    FullWeight& weight = full.emplace_back();
    weight.weight = *id;
    weight.values.resize(static_cast<std::size_t>(info.elements));
    file.read_f32(info, 0, weight.values);
  }
  for (const std::string& module : modules) {
    const bool is_stored = std::any_of(
        full.begin(), full.end(), [&](const FullWeight& weight) { return is_saved_whole({module}, weight.weight); });
    if (!is_stored) {
      throw FormatError(fmt::format("modules_to_save names {}, but no tensor of it is stored", module), fields.where());
    }
  }
  if (config.tie_word_embeddings) join_tied_head(full, fields);
  std::sort(full.begin(), full.end(), [](const FullWeight& a, const FullWeight& b) { return a.weight < b.weight; });
  return full;
}

void check_nothing_is_left(const SafetensorsFile& file, const std::vector<AdapterPair>& pairs) {
  for (const SafetensorInfo& info : file.tensors()) {
    if (parse_peft_full_name(info.name)) continue;
    const auto id = parse_peft_name(info.name);
    const std::string where = fmt::format("{}: {}", file.path().string(), info.name);
    if (!id) throw UnsupportedError("this tensor is no LoRA factor of a projection", where);
    const bool targeted = std::any_of(pairs.begin(), pairs.end(), [&](const AdapterPair& pair) {
      return pair.layer == id->layer && pair.site == id->site;
    });
    if (!targeted) {
      throw FormatError("adapter_config.json does not target this module, or the model has no such layer", where);
    }
  }
}

}  // namespace

AdapterFile read_peft_adapter(const fs::path& folder, const ModelConfig& config) {
  const fs::path config_path = folder / "adapter_config.json";
  const JsonValue document = read_json_file(config_path);
  const JsonFields fields(document, config_path.string());
  refuse_other_features(document, fields);
  if (!fs::exists(folder / "adapter_model.safetensors") && fs::exists(folder / "adapter_model.bin")) {
    throw UnsupportedError("the adapter is pickled (adapter_model.bin)", folder.string(),
                           "save it again as safetensors");
  }
  const SafetensorsFile file(folder / "adapter_model.safetensors");

  AdapterFile adapter;
  adapter.base_model = fields.string("base_model_name_or_path").value_or("");
  adapter.use_rslora = fields.boolean("use_rslora").value_or(false);
  adapter.dropout = fields.number("lora_dropout").value_or(0.0);
  if (!(adapter.dropout >= 0 && adapter.dropout < 1)) fields.wrong("lora_dropout", "a number from 0 to below 1");
  const double base_rank = fields.number("r").value_or(8);  // PEFT's defaults
  const double base_alpha = fields.number("lora_alpha").value_or(8);
  const auto ranks = read_pattern(fields, "rank_pattern");
  const auto alphas = read_pattern(fields, "alpha_pattern");
  const ModuleFilter filter = read_filter(fields, config);

  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const Site site : kAllSites) {
      const std::string module = module_path(layer, site);
      if (!filter.selects(module, layer, fields.where())) continue;
      AdapterPair pair;
      pair.layer = layer;
      pair.site = site;
      pair.r = rank_of(pattern_value(ranks, module, base_rank, fields.where()), module, fields.where());
      pair.alpha = pattern_value(alphas, module, base_alpha, fields.where());
      const auto r = static_cast<double>(pair.r);
      pair.scale = pair.alpha / (adapter.use_rslora ? std::sqrt(r) : r);
      if (!std::isfinite(pair.scale)) fields.wrong("lora_alpha", "a finite number");
      const FactorShapes shapes = shapes_of(config, layer, site, pair.r);
      pair.a = read_factor(file, {layer, site, Factor::kA}, shapes.a);
      pair.b = read_factor(file, {layer, site, Factor::kB}, shapes.b);
      adapter.pairs.push_back(std::move(pair));
    }
  }
  if (adapter.pairs.empty()) {
    throw FormatError("target_modules matches no projection of this model", fields.where(),
                      "the adapter is of another model");
  }
  adapter.full = read_full_weights(file, fields, config);
  check_nothing_is_left(file, adapter.pairs);
  return adapter;
}

}  // namespace lomu

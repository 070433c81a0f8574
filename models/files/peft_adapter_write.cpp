// write_peft_adapter: the folder that PeftModel.from_pretrained loads.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/error.h"
#include "models/files/atomic_file.h"
#include "models/files/peft_adapter.h"
#include "models/files/safetensors_writer.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string module_of(const AdapterPair& pair) {
  return module_path(pair.layer, pair.site);
}

void check_pair(const AdapterPair& pair, bool use_rslora, const ModelConfig& config) {
  const std::string where = module_of(pair);
  if (pair.layer < 0 || pair.layer >= config.num_layers || pair.r < 1) {
    throw UsageError(
        fmt::format("a pair of rank {} in layer {} of a model with {} layers", pair.r, pair.layer, config.num_layers),
        where);
  }
  const WeightShape weight = shape_of(config, weight_of(pair.layer, pair.site));
  if (static_cast<std::int64_t>(pair.a.size()) != pair.r * weight.cols ||
      static_cast<std::int64_t>(pair.b.size()) != pair.r * weight.rows) {
    throw UsageError(fmt::format("factors of {} and {} elements for rank {} on a [{}, {}] weight", pair.a.size(),
                                 pair.b.size(), pair.r, weight.rows, weight.cols),
                     where);
  }
  const auto r = static_cast<double>(pair.r);
  const double expected = pair.alpha / (use_rslora ? std::sqrt(r) : r);
  if (!(std::abs(pair.scale - expected) <= 1e-12 * std::abs(expected))) {
    throw UsageError(fmt::format("the scale {} is not what PEFT computes from alpha {} and rank {}: {}", pair.scale,
                                 pair.alpha, pair.r, expected),
                     where);
  }
  const auto all_finite = [](const std::vector<float>& v) {
    return std::all_of(v.begin(), v.end(), [](float x) { return std::isfinite(x); });
  };
  if (!all_finite(pair.a)) throw NumericError("NaN or infinity in the adapter", where + ".lora_A");
  if (!all_finite(pair.b)) throw NumericError("NaN or infinity in the adapter", where + ".lora_B");
}

// PEFT writes alpha as it was given, and people give integers.
Json number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

// What most pairs have goes to the top, the others into a pattern: by leaf name where all layers agree, else by full
// path.
template <typename Value>
std::pair<Value, std::map<std::string, Value>> top_and_pattern(const std::vector<AdapterPair>& pairs,
                                                               Value AdapterPair::*member) {
  std::map<Value, std::size_t> counts;
  std::map<Site, std::set<Value>> by_site;
  for (const AdapterPair& pair : pairs) {
    ++counts[pair.*member];
    by_site[pair.site].insert(pair.*member);
  }
  const Value top =
      std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) { return a.second < b.second; })->first;
  std::map<std::string, Value> pattern;
  for (const AdapterPair& pair : pairs) {
    if (pair.*member == top) continue;
    const bool same_in_all_layers = by_site[pair.site].size() == 1;
    pattern[same_in_all_layers ? std::string(module_leaf(pair.site)) : module_of(pair)] = pair.*member;
  }
  return {top, std::move(pattern)};
}

struct Targets {
  std::set<std::string> modules;
  std::optional<std::set<std::int64_t>> layers;
};

// Leaf names when the pairs are all of some sites in some layers; else every module by its path.
Targets targets_of(const std::vector<AdapterPair>& pairs, const ModelConfig& config) {
  Targets targets;
  std::set<std::int64_t> layers;
  std::set<Site> sites;
  for (const AdapterPair& pair : pairs) {
    layers.insert(pair.layer);
    sites.insert(pair.site);
  }
  if (layers.size() * sites.size() != pairs.size()) {
    for (const AdapterPair& pair : pairs) targets.modules.insert(module_of(pair));
    return targets;
  }
  for (const Site site : sites) targets.modules.emplace(module_leaf(site));
  if (static_cast<std::int64_t>(layers.size()) != config.num_layers) targets.layers = std::move(layers);
  return targets;
}

void check_full(const FullWeight& full, const ModelConfig& config) {
  const std::string where = hf_name(full.weight);
  if (static_cast<std::int64_t>(full.values.size()) != shape_of(config, full.weight).size()) {
    throw UsageError(
        fmt::format("{} elements for a weight of {}", full.values.size(), shape_of(config, full.weight).size()), where);
  }
  if (!std::all_of(full.values.begin(), full.values.end(), [](float x) { return std::isfinite(x); })) {
    throw NumericError("NaN or infinity in a weight trained in full", where);
  }
}

/// Leaf names of the modules whose weights are saved whole: "embed_tokens", "input_layernorm".
Json modules_to_save(const std::vector<FullWeight>& full) {
  std::set<std::string> modules;
  for (const FullWeight& weight : full) modules.insert(full_module_leaf(weight.weight));
  return modules.empty() ? Json(nullptr) : Json(modules);
}

// The keys every PEFT since 0.11 knows: older ones refuse a key they have never heard of.
std::string config_text(const AdapterFile& adapter, const std::vector<FullWeight>& stored, const ModelConfig& config) {
  const auto [rank, rank_pattern] = top_and_pattern(adapter.pairs, &AdapterPair::r);
  const auto [alpha, alpha_pattern] = top_and_pattern(adapter.pairs, &AdapterPair::alpha);
  const Targets targets = targets_of(adapter.pairs, config);
  Json json;
  json["alpha_pattern"] = Json::object();
  for (const auto& [key, value] : alpha_pattern) json["alpha_pattern"][key] = number(value);
  json["auto_mapping"] = nullptr;
  json["base_model_name_or_path"] = adapter.base_model.empty() ? Json(nullptr) : Json(adapter.base_model);
  json["bias"] = "none";
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["layer_replication"] = nullptr;
  json["layers_pattern"] = nullptr;
  json["layers_to_transform"] = targets.layers ? Json(*targets.layers) : Json(nullptr);
  json["loftq_config"] = Json::object();
  json["lora_alpha"] = number(alpha);
  json["lora_dropout"] = adapter.dropout;
  json["megatron_config"] = nullptr;
  json["megatron_core"] = "megatron.core";
  json["modules_to_save"] = modules_to_save(stored);
  json["peft_type"] = "LORA";
  json["r"] = rank;
  json["rank_pattern"] = Json::object();
  for (const auto& [key, value] : rank_pattern) json["rank_pattern"][key] = value;
  json["revision"] = nullptr;
  json["target_modules"] = targets.modules;
  json["task_type"] = "CAUSAL_LM";
  json["use_dora"] = false;
  json["use_rslora"] = adapter.use_rslora;
  return json.dump(2) + "\n";
}

void write_factors(const fs::path& path, const std::vector<AdapterPair>& pairs, const std::vector<FullWeight>& full,
                   const ModelConfig& config, DType dtype) {
  std::map<std::string, std::span<const float>> values;  // sorted by name, as PEFT's files are
  std::map<std::string, TensorSpec> specs;
  for (const AdapterPair& pair : pairs) {
    const WeightShape weight = shape_of(config, weight_of(pair.layer, pair.site));
    const std::string a = peft_name({pair.layer, pair.site, Factor::kA});
    const std::string b = peft_name({pair.layer, pair.site, Factor::kB});
    values[a] = pair.a;
    values[b] = pair.b;
    specs[a] = {a, dtype, {pair.r, weight.cols}};
    specs[b] = {b, dtype, {weight.rows, pair.r}};
  }
  for (const FullWeight& weight : full) {
    const std::string name = peft_name(weight.weight);
    values[name] = weight.values;
    specs[name] = {name, dtype, shape_of(config, weight.weight).dims()};
  }
  std::vector<TensorSpec> list;
  for (auto& [name, spec] : specs) list.push_back(std::move(spec));
  SafetensorsWriter writer(path, std::move(list));
  for (const TensorSpec& spec : writer.tensors()) writer.write(values.at(spec.name));
  writer.commit();
}

std::vector<float> as_stored(const std::vector<float>& values, DType dtype) {
  std::vector<float> result = values;
  for (float& x : result) x = stored_value(x, dtype);
  return result;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_written(const fs::path& folder, const std::vector<AdapterPair>& pairs, const std::vector<FullWeight>& full,
                   const ModelConfig& config, DType dtype) {
  const AdapterFile back = read_peft_adapter(folder, config);
  bool same = back.pairs.size() == pairs.size();
  for (std::size_t i = 0; same && i < pairs.size(); ++i) {
    const AdapterPair& x = pairs[i];
    const AdapterPair& y = back.pairs[i];
    same = x.layer == y.layer && x.site == y.site && x.r == y.r && x.alpha == y.alpha &&
           same_bits(as_stored(x.a, dtype), y.a) && same_bits(as_stored(x.b, dtype), y.b);
    if (!same) throw FileError("the adapter reads back differently from what was written", module_of(x));
  }
  same = same && back.full.size() == full.size();
  for (std::size_t i = 0; same && i < full.size(); ++i) {
    same = back.full[i].weight == full[i].weight && same_bits(as_stored(full[i].values, dtype), back.full[i].values);
  }
  if (!same) throw FileError("the adapter reads back with other pairs than were written", folder.string());
}

}  // namespace

void write_peft_adapter(const fs::path& folder, const AdapterFile& adapter, const ModelConfig& config, DType dtype,
                        bool replace) {
  if (adapter.pairs.empty()) throw UsageError("an adapter without pairs cannot be written", folder.string());
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    throw UsageError(fmt::format("adapters are stored as f32, f16 or bf16, not {}", name_of(dtype)), folder.string());
  }
  std::vector<AdapterPair> pairs = adapter.pairs;
  std::sort(pairs.begin(), pairs.end(), [](const AdapterPair& a, const AdapterPair& b) {
    return std::pair(a.layer, a.site) < std::pair(b.layer, b.site);
  });
  for (const AdapterPair& pair : pairs) check_pair(pair, adapter.use_rslora, config);
  const auto twice = std::adjacent_find(pairs.begin(), pairs.end(), [](const AdapterPair& a, const AdapterPair& b) {
    return a.layer == b.layer && a.site == b.site;
  });
  if (twice != pairs.end()) throw UsageError("two pairs for one module", module_of(*twice));
  std::vector<FullWeight> full = adapter.full;
  std::sort(full.begin(), full.end(), [](const FullWeight& a, const FullWeight& b) { return a.weight < b.weight; });
  for (const FullWeight& weight : full) check_full(weight, config);
  // PEFT gives the module of the embedding a weight of its own and leaves a tied head with the old one: it needs both.
  std::vector<FullWeight> stored = full;
  for (const FullWeight& weight : full) {
    if (config.tie_word_embeddings && weight.weight.kind == WeightKind::kEmbed) {
      stored.push_back({{WeightKind::kLmHead, 0}, weight.values});
    }
  }

  AtomicFolder output(folder, replace ? IfExists::kReplace : IfExists::kRefuse);
  write_file(output.path() / "adapter_config.json", config_text(adapter, stored, config));
  write_factors(output.path() / "adapter_model.safetensors", pairs, stored, config, dtype);
  check_written(output.path(), pairs, full, config, dtype);
  output.commit();
}

}  // namespace lomu

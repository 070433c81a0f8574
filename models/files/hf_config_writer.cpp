#include "models/files/hf_config_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/error.h"
#include "models/files/mapped_file.h"

namespace lomu {
namespace {

using Json = nlohmann::ordered_json;

std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::kF16: return "float16";
    case DType::kBF16: return "bfloat16";
    default: return "float32";
  }
}

[[noreturn]] void refuse(std::string_view what) {
  throw UnsupportedError(fmt::format("config.json cannot say: {}", what), "config.json",
                         "export the adapter as a PEFT folder and keep the GGUF as its base");
}

// GGUF stores only the divisors that Llama 3's scaling gives. Its four numbers are found again by trying those that are
// in use (factor is the last divisor; low 1, high 4 in every Llama 3 release) with each power of two as the original
// length.
RopeConfig llama3_from_divisors(const ModelConfig& config) {
  ModelConfig plain = config;
  plain.rope.frequency_divisors.clear();
  ModelConfig guess = plain;
  guess.rope.type = RopeType::kLlama3;
  guess.rope.factor = static_cast<double>(config.rope.frequency_divisors.back());
  const auto base = rope_inverse_frequencies(plain);
  for (std::int64_t original = 16; original <= config.max_position; original *= 2) {
    guess.rope.original_max_position = original;
    const auto scaled = rope_inverse_frequencies(guess);
    bool same = true;
    for (std::size_t i = 0; i < base.size() && same; ++i) {
      const auto divisor = static_cast<double>(config.rope.frequency_divisors[i]);
      same = std::abs(base[i] / scaled[i] / divisor - 1.0) < 1e-5;
    }
    if (same) return guess.rope;
  }
  refuse("rope frequency factors other than Llama 3's");
}

void add_rope(Json& json, const ModelConfig& config) {
  RopeConfig rope = config.rope;
  if (!rope.frequency_divisors.empty()) {
    if (rope.type != RopeType::kDefault) refuse("linear rope scaling together with frequency factors");
    const auto& divisors = rope.frequency_divisors;
    const bool none = std::all_of(divisors.begin(), divisors.end(), [](float d) { return d == 1.0f; });
    if (!none) rope = llama3_from_divisors(config);
  }
  json["rope_theta"] = rope.theta;
  if (rope.type == RopeType::kDefault) {
    json["rope_scaling"] = nullptr;
    return;
  }
  Json& scaling = json["rope_scaling"];
  scaling["rope_type"] = name_of(rope.type);
  scaling["factor"] = rope.factor;
  if (rope.type != RopeType::kLlama3) return;
  scaling["low_freq_factor"] = rope.low_freq_factor;
  scaling["high_freq_factor"] = rope.high_freq_factor;
  scaling["original_max_position_embeddings"] = rope.original_max_position;
}

// Which class has the biases and windows that the file has.
Architecture class_of(const ModelConfig& config) {
  const bool windows =
      std::any_of(config.sliding_window.begin(), config.sliding_window.end(), [](auto w) { return w != 0; });
  switch (config.architecture) {
    case Architecture::kLlama:
    case Architecture::kMistral:
      if (windows || config.architecture == Architecture::kMistral) {
        if (config.qkv_bias || config.o_bias || config.mlp_bias) refuse("Mistral with biases");
        const auto& w = config.sliding_window;
        if (std::any_of(w.begin(), w.end(), [&](auto x) { return x != w.front(); }))
          refuse("Mistral with layers of two kinds");
        return Architecture::kMistral;
      }
      if (config.qkv_bias != config.o_bias) refuse("Llama with biases on q, k, v or on o only");
      return Architecture::kLlama;
    case Architecture::kQwen2:
      if (!config.qkv_bias || config.o_bias || config.mlp_bias) refuse("Qwen2 with other biases than q, k and v");
      break;
    case Architecture::kQwen3:
      if (config.qkv_bias != config.o_bias || config.mlp_bias)
        refuse("Qwen3 with other biases than all of q, k, v and o");
      break;
  }
  return config.architecture;
}

void add_windows(Json& json, const ModelConfig& config, Architecture model_class) {
  const auto& windows = config.sliding_window;
  if (model_class == Architecture::kMistral) {
    json["sliding_window"] = windows.front() == 0 ? Json(nullptr) : Json(windows.front());
    return;
  }
  if (model_class == Architecture::kLlama) return;
  const std::int64_t largest = *std::max_element(windows.begin(), windows.end());
  json["use_sliding_window"] = largest != 0;
  json["sliding_window"] = largest == 0 ? Json(nullptr) : Json(largest);
  if (largest == 0) return;
  for (const std::int64_t window : windows) {
    if (window != 0 && window != largest) refuse("windows of two sizes");
    json["layer_types"].push_back(window == 0 ? "full_attention" : "sliding_attention");
  }
}

}  // namespace

std::string config_json_with_dtype(const std::filesystem::path& source_config_json, DType dtype) {
  const MappedFile file(source_config_json);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  Json json = Json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_object()) throw FormatError("not a JSON object", source_config_json.string());
  const bool new_spelling = json.contains("dtype");
  if (new_spelling) json["dtype"] = torch_name(dtype);
  if (!new_spelling || json.contains("torch_dtype")) json["torch_dtype"] = torch_name(dtype);
  return json.dump(2) + "\n";
}

std::string config_json_from(const ModelConfig& config, DType dtype) {
  const Architecture model_class = class_of(config);
  Json json;
  switch (model_class) {
    case Architecture::kLlama: json["architectures"] = {"LlamaForCausalLM"}; break;
    case Architecture::kMistral: json["architectures"] = {"MistralForCausalLM"}; break;
    case Architecture::kQwen2: json["architectures"] = {"Qwen2ForCausalLM"}; break;
    case Architecture::kQwen3: json["architectures"] = {"Qwen3ForCausalLM"}; break;
  }
  json["model_type"] = name_of(model_class);
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.num_layers;
  json["num_attention_heads"] = config.num_heads;
  json["num_key_value_heads"] = config.num_kv_heads;
  json["head_dim"] = config.head_dim;
  json["vocab_size"] = config.vocab_size;
  json["max_position_embeddings"] = config.max_position;
  json["hidden_act"] = "silu";
  json["rms_norm_eps"] = config.rms_norm_eps;
  add_rope(json, config);
  add_windows(json, config, model_class);
  if (model_class == Architecture::kLlama) json["mlp_bias"] = config.mlp_bias;
  if (model_class == Architecture::kLlama || model_class == Architecture::kQwen3)
    json["attention_bias"] = config.qkv_bias;
  json["attention_dropout"] = 0.0;
  json["tie_word_embeddings"] = config.tie_word_embeddings;
  json["bos_token_id"] = config.bos_id ? Json(*config.bos_id) : Json(nullptr);
  json["eos_token_id"] = nullptr;
  if (config.eos_ids.size() == 1) json["eos_token_id"] = config.eos_ids.front();
  if (config.eos_ids.size() > 1) json["eos_token_id"] = config.eos_ids;
  json["pad_token_id"] = config.pad_id ? Json(*config.pad_id) : Json(nullptr);
  json["torch_dtype"] = torch_name(dtype);
  json["use_cache"] = true;
  return json.dump(2) + "\n";
}

}  // namespace lomu

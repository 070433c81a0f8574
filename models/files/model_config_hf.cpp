// read_hf_config: config.json of the four architectures, with the defaults of transformers 5.23.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "kernels/error.h"
#include "models/files/json_value.h"
#include "models/files/model_config.h"

namespace lomu {
namespace {

// What transformers assumes when a key is absent (configuration_{llama,mistral,qwen2,qwen3}.py).
struct Defaults {
  Architecture architecture;
  std::string_view model_class;
  std::int64_t vocab_size;
  std::int64_t intermediate_size;
  std::int64_t num_kv_heads;  // 0: as many as heads
  std::int64_t head_dim;      // 0: hidden_size / heads
  std::int64_t max_position;
  std::int64_t bos_id;  // -1: none
  std::int64_t eos_id;
};
constexpr std::array kDefaults{
    Defaults{Architecture::kLlama, "LlamaForCausalLM", 32000, 11008, 0, 0, 2048, 1, 2},
    Defaults{Architecture::kMistral, "MistralForCausalLM", 32000, 14336, 8, 0, 131072, 1, 2},
    Defaults{Architecture::kQwen2, "Qwen2ForCausalLM", 151936, 22016, 32, 0, 32768, -1, -1},
    Defaults{Architecture::kQwen3, "Qwen3ForCausalLM", 151936, 22016, 32, 128, 32768, -1, -1},
};
constexpr std::int64_t kDefaultHidden = 4096;
constexpr std::int64_t kDefaultLayers = 32;
constexpr std::int64_t kDefaultHeads = 32;
constexpr std::int64_t kDefaultWindow = 4096;
constexpr std::int64_t kDefaultMaxWindowLayers = 28;

[[noreturn]] void refuse(std::string_view feature, const JsonFields& fields) {
  throw UnsupportedError(fmt::format("{}: not implemented", feature), fields.where(),
                         "Lomu reads Llama 2/3, SmolLM2, Mistral, Qwen2/2.5 and Qwen3 decoders");
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

const Defaults& architecture_of(const JsonFields& fields) {
  const auto type = fields.string("model_type");
  if (!type) {
    throw FormatError("model_type is missing", fields.where(), "is this the config.json of a language model?");
  }
  const auto it = std::find_if(kDefaults.begin(), kDefaults.end(),
                               [&](const Defaults& d) { return name_of(d.architecture) == *type; });
  if (it == kDefaults.end()) refuse(fmt::format("model_type \"{}\"", *type), fields);
  const auto classes = fields.strings("architectures");
  if (classes && std::none_of(classes->begin(), classes->end(),
                              [&](const std::string& c) { return equal_ignoring_case(c, it->model_class); })) {
    refuse(fmt::format("architectures [{}] (only {} is read for this model_type)", fmt::join(*classes, ", "),
                       it->model_class),
           fields);
  }
  return *it;
}

// Keys that change the computation when they are set to anything but "off": zero, false, null, an empty list or object.
constexpr std::array<std::string_view, 29> kMustBeOff{
    "quantization_config",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "moe_intermediate_size",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logits_soft_cap",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "logits_scaling",
    "logit_scale",
    "clip_qkv",
    "attn_temperature_tuning",
    "no_rope_layers",
    "rope_interleaved",
    "use_qk_norm",
    "is_encoder_decoder",
    "add_cross_attention",
    "num_nextn_predict_layers",
    "kv_lora_rank",
    "query_pre_attn_scalar",
    "attention_chunk_size",
    "pruned_heads",
    "use_mrope",
    "dual_chunk_attention_config",
};

bool is_off(const JsonValue& value) {
  if (value.is_null()) return true;
  if (const bool* b = value.if_bool()) return !*b;
  if (const auto number = value.if_number()) return *number == 0;
  if (const auto* list = value.if_array()) return list->empty();
  if (const auto* object = value.if_object()) return object->empty();
  return false;
}

void refuse_other_features(const JsonFields& fields) {
  for (const std::string_view key : kMustBeOff) {
    const JsonValue* value = fields.find(key);
    if (value != nullptr && !is_off(*value)) refuse(key, fields);
  }
  const std::string activation = fields.string("hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish") refuse(fmt::format("hidden_act \"{}\"", activation), fields);
  if (fields.integer("pretraining_tp").value_or(1) > 1) refuse("pretraining_tp greater than 1", fields);
  if (const auto code = fields.object("auto_map"); code && code->has("AutoModelForCausalLM")) {
    refuse("model code of its own (auto_map)", fields);
  }
}

void refuse_partial_rotation(const JsonFields& fields) {
  if (fields.number("partial_rotary_factor").value_or(1.0) != 1.0) refuse("partial_rotary_factor", fields);
}

double required(const JsonFields& fields, std::string_view key) {
  if (const auto value = fields.number(key)) return *value;
  fields.wrong(key, "a number");
}

std::int64_t max_position_of(const JsonFields& fields, const Defaults& defaults) {
  return fields.integer("max_position_embeddings").value_or(defaults.max_position);
}

// Old spelling: rope_theta and rope_scaling at the top; new spelling: all in rope_parameters. rope_scaling wins when
// both are there, and a theta inside wins over one at the top (convert_rope_params_to_dict).
RopeConfig read_rope(const JsonFields& fields, const Defaults& defaults) {
  refuse_partial_rotation(fields);
  RopeConfig rope;
  rope.theta = fields.number("rope_theta").value_or(rope.theta);
  auto inner = fields.object("rope_scaling");
  if (!inner || fields.find("rope_scaling")->if_object()->empty()) inner = fields.object("rope_parameters");
  if (!inner) return rope;
  for (const std::string_view nested : {"full_attention", "sliding_attention"}) {
    if (inner->has(nested)) refuse("rope_parameters of their own for each layer type", fields);
  }
  refuse_partial_rotation(*inner);
  rope.theta = inner->number("rope_theta").value_or(rope.theta);
  auto type = inner->string("rope_type");
  if (!type) type = inner->string("type");
  const std::string name = type.value_or("default");
  if (name == "default") return rope;
  if (name != "linear" && name != "llama3") refuse(fmt::format("rope_type \"{}\"", name), fields);
  rope.factor = required(*inner, "factor");
  if (name == "linear") {
    rope.type = RopeType::kLinear;
    return rope;
  }
  rope.type = RopeType::kLlama3;
  rope.low_freq_factor = required(*inner, "low_freq_factor");
  rope.high_freq_factor = required(*inner, "high_freq_factor");
  auto original = fields.integer("original_max_position_embeddings");
  if (!original) original = inner->integer("original_max_position_embeddings");
  rope.original_max_position = original.value_or(max_position_of(fields, defaults));
  return rope;
}

std::optional<std::int64_t> window_size(const JsonFields& fields, std::optional<std::int64_t> if_absent) {
  const JsonValue* value = fields.find("sliding_window");
  if (value == nullptr) return if_absent;
  const auto window = fields.integer("sliding_window");
  if (window && *window < 1) fields.wrong("sliding_window", "null or at least 1");
  return window;
}

std::optional<std::vector<std::string>> layer_types(const JsonFields& fields, std::int64_t layers) {
  auto types = fields.strings("layer_types");
  if (!types) return std::nullopt;
  if (static_cast<std::int64_t>(types->size()) != layers) {
    throw FormatError(fmt::format("layer_types has {} entries; the model has {} layers", types->size(), layers),
                      fields.where());
  }
  for (const std::string& type : *types) {
    if (type != "full_attention" && type != "sliding_attention") refuse(fmt::format("layer type \"{}\"", type), fields);
  }
  return types;
}

// Llama has no windows; Mistral one for all layers; Qwen has them only with use_sliding_window, from layer
// max_window_layers on or where layer_types says so.
std::vector<std::int64_t> read_windows(const JsonFields& fields, Architecture architecture, std::int64_t layers) {
  const auto types = layer_types(fields, layers);
  const auto count = static_cast<std::size_t>(layers);
  const bool qwen = architecture == Architecture::kQwen2 || architecture == Architecture::kQwen3;
  std::optional<std::int64_t> window;
  if (architecture == Architecture::kMistral) window = window_size(fields, kDefaultWindow);
  if (qwen && fields.boolean("use_sliding_window").value_or(false)) window = window_size(fields, kDefaultWindow);

  std::vector<std::int64_t> windows(count, 0);
  if (!qwen) {
    const std::string_view expected = window ? "sliding_attention" : "full_attention";
    if (types && std::any_of(types->begin(), types->end(), [&](const std::string& t) { return t != expected; })) {
      refuse(fmt::format("layer_types other than {} for {}", expected, name_of(architecture)), fields);
    }
    std::fill(windows.begin(), windows.end(), window.value_or(0));
    return windows;
  }
  const std::int64_t first = fields.integer("max_window_layers").value_or(kDefaultMaxWindowLayers);
  for (std::size_t i = 0; i < count; ++i) {
    const bool slides = types ? (*types)[i] == "sliding_attention" : window && static_cast<std::int64_t>(i) >= first;
    if (slides && !window) {
      throw FormatError(fmt::format("layer_types says that layer {} slides, but there is no sliding_window in use", i),
                        fields.where());
    }
    windows[i] = slides ? *window : 0;
  }
  return windows;
}

// -1 is how older configurations spell "none".
std::optional<std::int64_t> token_id(const JsonFields& fields, std::string_view key, std::int64_t if_absent) {
  const bool absent = fields.find(key) == nullptr;
  const std::int64_t id = absent ? if_absent : fields.integer(key).value_or(-1);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::vector<std::int64_t> eos_ids(const JsonFields& fields, std::int64_t if_absent) {
  if (fields.find("eos_token_id") == nullptr)
    return if_absent < 0 ? std::vector<std::int64_t>{} : std::vector{if_absent};
  auto ids = fields.integers("eos_token_id").value_or(std::vector<std::int64_t>{});
  std::erase_if(ids, [](std::int64_t id) { return id < 0; });
  return ids;
}

std::optional<DType> stored_dtype(const JsonFields& fields) {
  auto name = fields.string("dtype");
  if (!name) name = fields.string("torch_dtype");
  if (!name || *name == "auto") return std::nullopt;
  std::string_view bare = *name;
  if (bare.starts_with("torch.")) bare.remove_prefix(6);
  if (bare == "float32") return DType::kF32;
  if (bare == "float16") return DType::kF16;
  if (bare == "bfloat16") return DType::kBF16;
  refuse(fmt::format("weights of dtype \"{}\"", *name), fields);
}

}  // namespace

ModelConfig read_hf_config(const std::filesystem::path& config_json) {
  const JsonValue document = read_json_file(config_json);
  const JsonFields fields(document, config_json.string());
  const Defaults& defaults = architecture_of(fields);
  refuse_other_features(fields);

  ModelConfig config;
  config.architecture = defaults.architecture;
  config.hidden_size = fields.integer("hidden_size").value_or(kDefaultHidden);
  config.intermediate_size = fields.integer("intermediate_size").value_or(defaults.intermediate_size);
  config.num_layers = fields.integer("num_hidden_layers").value_or(kDefaultLayers);
  config.num_heads = fields.integer("num_attention_heads").value_or(kDefaultHeads);
  if (config.num_heads < 1 || config.num_layers < 1 || config.num_layers > kMaxLayers) {
    throw FormatError(fmt::format("num_attention_heads {} or num_hidden_layers {} is impossible", config.num_heads,
                                  config.num_layers),
                      fields.where());
  }
  // An explicit null means "as many as heads" in all four; only an absent key takes the default of the architecture.
  const std::int64_t absent_kv_heads = defaults.num_kv_heads == 0 ? config.num_heads : defaults.num_kv_heads;
  config.num_kv_heads = fields.find("num_key_value_heads") == nullptr
                            ? absent_kv_heads
                            : fields.integer("num_key_value_heads").value_or(config.num_heads);
  const bool has_head_dim = fields.has("head_dim");
  if (!has_head_dim && defaults.head_dim == 0 && config.hidden_size % config.num_heads != 0) {
    throw FormatError(fmt::format("hidden_size {} is not a multiple of num_attention_heads {}, and head_dim is absent",
                                  config.hidden_size, config.num_heads),
                      fields.where());
  }
  const std::int64_t absent_head_dim =
      defaults.head_dim == 0 ? config.hidden_size / config.num_heads : defaults.head_dim;
  config.head_dim = fields.integer("head_dim").value_or(absent_head_dim);
  config.vocab_size = fields.integer("vocab_size").value_or(defaults.vocab_size);
  config.max_position = max_position_of(fields, defaults);
  config.rms_norm_eps = fields.number("rms_norm_eps").value_or(1e-6);
  config.rope = read_rope(fields, defaults);
  config.sliding_window = read_windows(fields, config.architecture, config.num_layers);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings").value_or(false);

  const bool attention_bias = fields.boolean("attention_bias").value_or(false);
  switch (config.architecture) {
    case Architecture::kLlama:
      config.qkv_bias = config.o_bias = attention_bias;
      config.mlp_bias = fields.boolean("mlp_bias").value_or(false);
      break;
    case Architecture::kMistral: break;
    case Architecture::kQwen2: config.qkv_bias = true; break;
    case Architecture::kQwen3:
      config.qkv_bias = config.o_bias = attention_bias;
      config.qk_norm = true;
      break;
  }
  config.bos_id = token_id(fields, "bos_token_id", defaults.bos_id);
  config.pad_id = token_id(fields, "pad_token_id", -1);
  config.eos_ids = eos_ids(fields, defaults.eos_id);
  config.stored_dtype = stored_dtype(fields);
  validate(config, fields.where());
  return config;
}

}  // namespace lomu

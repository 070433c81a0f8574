// read_gguf_config: metadata of llama (Llama, SmolLM2, Mistral), qwen2 and qwen3 files.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "kernels/error.h"
#include "models/files/gguf.h"
#include "models/files/model_config.h"

namespace lomu {
namespace {

[[noreturn]] void refuse(std::string_view feature, const GgufFile& file) {
  throw UnsupportedError(fmt::format("{}: not implemented", feature), file.path().string(),
                         "GGUF files of the architectures llama, qwen2 and qwen3 are read");
}

// Metadata of one architecture: "llama.block_count" and so on.
class Keys {
 public:
  Keys(const GgufFile& file, std::string architecture) : file_(file), architecture_(std::move(architecture)) {}

  [[nodiscard]] std::string full(std::string_view key) const { return fmt::format("{}.{}", architecture_, key); }
  [[nodiscard]] std::optional<std::int64_t> integer(std::string_view key) const { return file_.integer(full(key)); }
  [[nodiscard]] std::optional<double> number(std::string_view key) const { return file_.number(full(key)); }
  [[nodiscard]] std::optional<std::string> string(std::string_view key) const { return file_.string(full(key)); }
  [[nodiscard]] bool has(std::string_view key) const { return file_.has(full(key)); }

  [[nodiscard]] std::int64_t required(std::string_view key) const {
    if (const auto value = per_layer(key)) return *value;
    throw FormatError(fmt::format("the metadata key {} is missing", full(key)), file_.path().string());
  }

  /// Some writers give one number a layer. Layers that differ have no place in ModelConfig.
  [[nodiscard]] std::optional<std::int64_t> per_layer(std::string_view key) const {
    const auto it = file_.metadata().find(full(key));
    if (it == file_.metadata().end() || !std::holds_alternative<GgufArray>(it->second)) return integer(key);
    const auto& values = *file_.integers(full(key));
    if (values.empty())
      throw FormatError(fmt::format("the metadata key {} is empty", full(key)), file_.path().string());
    if (std::any_of(values.begin(), values.end(), [&](std::int64_t v) { return v != values.front(); })) {
      refuse(fmt::format("layers of different shapes ({})", full(key)), file_);
    }
    return values.front();
  }

 private:
  const GgufFile& file_;
  std::string architecture_;
};

// Keys that change the computation unless they are zero or absent.
constexpr std::array<std::string_view, 11> kMustBeZero{
    "expert_count",        "expert_used_count",        "attn_logit_softcapping",   "final_logit_softcapping",
    "attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale",          "logit_scale",
    "residual_scale",      "embedding_scale",          "attention.key_length_mla",
};

void refuse_other_features(const GgufFile& file, const Keys& keys) {
  for (const std::string_view key : kMustBeZero) {
    if (keys.number(key).value_or(0) != 0) refuse(keys.full(key), file);
  }
  if (file.has("adapter.type")) refuse("a LoRA adapter in GGUF (adapter.type)", file);
  if (const auto type = file.string("general.type"); type && *type != "model") {
    refuse(fmt::format("general.type \"{}\"", *type), file);
  }
  for (const std::string_view name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
    if (file.find(name) != nullptr) refuse(fmt::format("longrope ({})", name), file);
  }
}

RopeConfig read_rope(const GgufFile& file, const Keys& keys) {
  RopeConfig rope;
  rope.theta = keys.number("rope.freq_base").value_or(rope.theta);
  const std::string type = keys.string("rope.scaling.type").value_or(keys.has("rope.scale_linear") ? "linear" : "none");
  if (type == "linear") {
    auto factor = keys.number("rope.scaling.factor");
    if (!factor) factor = keys.number("rope.scale_linear");  // the key before scaling had types
    rope.factor = factor.value_or(1.0);
    if (rope.factor != 1.0) rope.type = RopeType::kLinear;
  } else if (type != "none") {
    refuse(fmt::format("rope scaling \"{}\"", type), file);
  }
  const GgufTensor* divisors = file.find("rope_freqs.weight");
  if (divisors == nullptr) return rope;
  if (divisors->dims.size() != 1 || divisors->elements > (1 << 16)) {
    throw FormatError("rope_freqs.weight must be a vector of half a head", file.path().string());
  }
  rope.frequency_divisors.resize(static_cast<std::size_t>(divisors->elements));
  file.read_f32(*divisors, 0, rope.frequency_divisors);
  return rope;
}

const GgufTensor& embedding_of(const GgufFile& file) {
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding != nullptr && embedding->dims.size() == 2) return *embedding;
  throw FormatError(embedding == nullptr ? "the tensor is missing" : "the tensor must be a matrix",
                    fmt::format("{}: token_embd.weight", file.path().string()));
}

// A Mistral file of architecture llama says its window here, for all layers. What it would mean for Qwen, where only
// some layers slide, no writer has defined.
std::int64_t window_of(const GgufFile& file, const Keys& keys, Architecture architecture, std::int64_t max_position) {
  const std::int64_t window = keys.per_layer("attention.sliding_window").value_or(0);
  if (window == 0 || window >= max_position) return 0;
  if (architecture != Architecture::kLlama) refuse(keys.full("attention.sliding_window"), file);
  return window;
}

std::optional<std::int64_t> token_id(const GgufFile& file, std::string_view key, std::int64_t vocab) {
  const auto id = file.integer(key);
  // Converters write 2^32 - 1 for "none".
  if (!id || *id < 0 || *id == 0xffffffff) return std::nullopt;
  if (*id >= vocab) {
    throw FormatError(fmt::format("{} is {}, but the vocabulary has {} tokens", key, *id, vocab), file.path().string());
  }
  return id;
}

void read_token_ids(const GgufFile& file, ModelConfig& config) {
  config.bos_id = token_id(file, "tokenizer.ggml.bos_token_id", config.vocab_size);
  config.pad_id = token_id(file, "tokenizer.ggml.padding_token_id", config.vocab_size);
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const auto id = token_id(file, key, config.vocab_size);
    if (id && std::find(config.eos_ids.begin(), config.eos_ids.end(), *id) == config.eos_ids.end()) {
      config.eos_ids.push_back(*id);
    }
  }
}

}  // namespace

ModelConfig read_gguf_config(const GgufFile& file) {
  const std::string where = file.path().string();
  const auto name = file.string("general.architecture");
  if (!name) throw FormatError("the metadata key general.architecture is missing", where);
  ModelConfig config;
  if (*name == "llama") {
    config.architecture = Architecture::kLlama;
  } else if (*name == "qwen2") {
    config.architecture = Architecture::kQwen2;
  } else if (*name == "qwen3") {
    config.architecture = Architecture::kQwen3;
  } else {
    refuse(fmt::format("general.architecture \"{}\"", *name), file);
  }
  const Keys keys(file, *name);
  refuse_other_features(file, keys);

  const GgufTensor& embedding = embedding_of(file);
  config.hidden_size = keys.required("embedding_length");
  config.intermediate_size = keys.required("feed_forward_length");
  config.num_layers = keys.required("block_count");
  config.num_heads = keys.required("attention.head_count");
  config.num_kv_heads = keys.per_layer("attention.head_count_kv").value_or(config.num_heads);
  config.max_position = keys.required("context_length");
  config.vocab_size = embedding.dims[1];
  if (const auto vocab = keys.integer("vocab_size"); vocab && *vocab != config.vocab_size) {
    throw FormatError(
        fmt::format("{} is {}, but token_embd.weight has {} rows", keys.full("vocab_size"), *vocab, config.vocab_size),
        where);
  }
  const auto eps = keys.number("attention.layer_norm_rms_epsilon");
  if (!eps)
    throw FormatError(fmt::format("the metadata key {} is missing", keys.full("attention.layer_norm_rms_epsilon")),
                      where);
  config.rms_norm_eps = *eps;

  if (config.num_heads < 1 || config.num_layers < 1 || config.num_layers > kMaxLayers) {
    throw FormatError(fmt::format("{} heads or {} layers are impossible", config.num_heads, config.num_layers), where);
  }
  const auto key_length = keys.integer("attention.key_length");
  if (!key_length && config.hidden_size % config.num_heads != 0) {
    throw FormatError(
        fmt::format("embedding_length {} is not a multiple of {} heads, and attention.key_length is absent",
                    config.hidden_size, config.num_heads),
        where);
  }
  config.head_dim = key_length.value_or(config.hidden_size / config.num_heads);
  if (keys.integer("attention.value_length").value_or(config.head_dim) != config.head_dim) {
    refuse("attention.value_length that differs from attention.key_length", file);
  }
  if (keys.integer("rope.dimension_count").value_or(config.head_dim) != config.head_dim) {
    refuse("rotation of a part of the head only (rope.dimension_count)", file);
  }
  config.rope = read_rope(file, keys);
  config.sliding_window.assign(static_cast<std::size_t>(config.num_layers),
                               window_of(file, keys, config.architecture, config.max_position));
  config.tie_word_embeddings = file.find("output.weight") == nullptr;
  config.qkv_bias = file.find("blk.0.attn_q.bias") != nullptr;
  config.o_bias = file.find("blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = file.find("blk.0.ffn_down.bias") != nullptr;
  config.qk_norm = config.architecture == Architecture::kQwen3;
  read_token_ids(file, config);
  validate(config, where);
  return config;
}

}  // namespace lomu

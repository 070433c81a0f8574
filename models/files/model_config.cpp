#include "models/files/model_config.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "kernels/error.h"

namespace lomu {
namespace {

// Far above any real decoder, and low enough that the bytes of a whole model cannot overflow 63 bits.
constexpr std::int64_t kMaxSize = std::int64_t{1} << 22;
constexpr std::int64_t kMaxVocab = std::int64_t{1} << 24;
constexpr std::int64_t kMaxPosition = std::int64_t{1} << 40;

void check_count(std::string_view name, std::int64_t value, std::int64_t limit, const std::string& where) {
  if (value >= 1 && value <= limit) return;
  throw FormatError(fmt::format("{} is {}; it must be 1 to {}", name, value, limit), where);
}

void check_positive(std::string_view name, double value, const std::string& where) {
  if (std::isfinite(value) && value > 0) return;
  throw FormatError(fmt::format("{} is {}; it must be a positive number", name, value), where);
}

void check_token(std::string_view name, std::int64_t id, std::int64_t vocab, const std::string& where) {
  if (id >= 0 && id < vocab) return;
  throw FormatError(fmt::format("{} is {}, but the vocabulary has {} tokens", name, id, vocab), where);
}

void check_rope(const RopeConfig& rope, std::int64_t head_dim, const std::string& where) {
  check_positive("rope_theta", rope.theta, where);
  if (rope.type != RopeType::kDefault) check_positive("the rope factor", rope.factor, where);
  if (rope.type == RopeType::kLlama3) {
    check_positive("low_freq_factor", rope.low_freq_factor, where);
    check_positive("high_freq_factor", rope.high_freq_factor, where);
    check_count("original_max_position_embeddings", rope.original_max_position, kMaxPosition, where);
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      throw FormatError(fmt::format("high_freq_factor {} must be greater than low_freq_factor {}",
                                    rope.high_freq_factor, rope.low_freq_factor),
                        where);
    }
  }
  if (rope.frequency_divisors.empty()) return;
  if (static_cast<std::int64_t>(rope.frequency_divisors.size()) != head_dim / 2) {
    throw FormatError(fmt::format("{} rope frequency factors for heads of {} elements; {} are needed",
                                  rope.frequency_divisors.size(), head_dim, head_dim / 2),
                      where);
  }
  for (const float divisor : rope.frequency_divisors) check_positive("a rope frequency factor", divisor, where);
}

}  // namespace

std::string_view name_of(Architecture architecture) {
  switch (architecture) {
    case Architecture::kLlama: return "llama";
    case Architecture::kMistral: return "mistral";
    case Architecture::kQwen2: return "qwen2";
    case Architecture::kQwen3: return "qwen3";
  }
  return "?";
}

std::string_view name_of(RopeType type) {
  switch (type) {
    case RopeType::kDefault: return "default";
    case RopeType::kLinear: return "linear";
    case RopeType::kLlama3: return "llama3";
  }
  return "?";
}

void validate(const ModelConfig& config, const std::string& where) {
  check_count("hidden_size", config.hidden_size, kMaxSize, where);
  check_count("intermediate_size", config.intermediate_size, kMaxSize, where);
  check_count("num_hidden_layers", config.num_layers, kMaxLayers, where);
  check_count("num_attention_heads", config.num_heads, 1 << 16, where);
  check_count("num_key_value_heads", config.num_kv_heads, 1 << 16, where);
  check_count("head_dim", config.head_dim, 1 << 16, where);
  check_count("vocab_size", config.vocab_size, kMaxVocab, where);
  check_count("max_position_embeddings", config.max_position, kMaxPosition, where);
  check_count("num_attention_heads * head_dim", config.q_size(), kMaxSize, where);
  check_count("num_key_value_heads * head_dim", config.kv_size(), kMaxSize, where);
  if (config.num_heads % config.num_kv_heads != 0) {
    throw FormatError(fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}",
                                  config.num_heads, config.num_kv_heads),
                      where);
  }
  if (config.head_dim % 2 != 0) {
    throw FormatError(fmt::format("head_dim is {}; rotary embedding needs an even number", config.head_dim), where);
  }
  if (!std::isfinite(config.rms_norm_eps) || config.rms_norm_eps < 0) {
    throw FormatError(fmt::format("rms_norm_eps is {}; it must be a number that is not negative", config.rms_norm_eps),
                      where);
  }
  check_rope(config.rope, config.head_dim, where);
  if (static_cast<std::int64_t>(config.sliding_window.size()) != config.num_layers) {
    throw FormatError(fmt::format("attention windows for {} layers; the model has {}", config.sliding_window.size(),
                                  config.num_layers),
                      where);
  }
  for (const std::int64_t window : config.sliding_window) {
    if (window != 0) check_count("sliding_window", window, kMaxPosition, where);
  }
  if (config.bos_id) check_token("bos_token_id", *config.bos_id, config.vocab_size, where);
  if (config.pad_id) check_token("pad_token_id", *config.pad_id, config.vocab_size, where);
  for (const std::int64_t id : config.eos_ids) check_token("eos_token_id", id, config.vocab_size, where);
}

std::vector<double> rope_inverse_frequencies(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const auto pairs = static_cast<std::size_t>(config.head_dim / 2);
  std::vector<double> frequencies(pairs);
  for (std::size_t i = 0; i < pairs; ++i) {
    double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
    if (rope.type == RopeType::kLinear) frequency /= rope.factor;
    if (rope.type == RopeType::kLlama3) {
      const auto original = static_cast<double>(rope.original_max_position);
      const double wavelength = 2.0 * std::numbers::pi / frequency;
      if (wavelength > original / rope.low_freq_factor) {
        frequency /= rope.factor;
      } else if (wavelength >= original / rope.high_freq_factor) {
        const double smooth =
            (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        frequency = (1.0 - smooth) * frequency / rope.factor + smooth * frequency;
      }
    }
    if (!rope.frequency_divisors.empty()) frequency /= static_cast<double>(rope.frequency_divisors[i]);
    frequencies[i] = frequency;
  }
  return frequencies;
}

}  // namespace lomu

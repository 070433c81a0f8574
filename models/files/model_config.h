// What a decoder is: the numbers of config.json or of GGUF metadata, checked, in one plain struct.
// Not the weights (model_files.h) and not their names (names.h). A feature that Lomu does not implement never gets
// here: the readers refuse it by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"

namespace lomu {

class GgufFile;

enum class Architecture : std::uint8_t { kLlama, kMistral, kQwen2, kQwen3 };

/// "llama", "mistral", "qwen2", "qwen3": Hugging Face's model_type.
std::string_view name_of(Architecture architecture);

enum class RopeType : std::uint8_t { kDefault, kLinear, kLlama3 };

/// "default", "linear", "llama3": Hugging Face's rope_type.
std::string_view name_of(RopeType type);

/// Rotary position embedding over the whole head (rotate-half layout: element i turns with element i + head_dim / 2).
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                     ///< linear, llama3
  double low_freq_factor = 1.0;            ///< llama3
  double high_freq_factor = 4.0;           ///< llama3
  std::int64_t original_max_position = 0;  ///< llama3
  /// Divisors of the inverse frequencies, head_dim / 2 of them, from a GGUF's `rope_freqs.weight`; usually empty.
  std::vector<float> frequency_divisors;
};

/// More layers than any decoder has; what a configuration asks for is refused above it before anything is allocated.
inline constexpr std::int64_t kMaxLayers = 4096;

/// The shape and constants of one decoder. All counts are positive and small enough that products of two fit an int64.
struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;  ///< divides num_heads
  std::int64_t head_dim = 0;      ///< even; not always hidden_size / num_heads
  std::int64_t vocab_size = 0;    ///< rows of the embedding
  std::int64_t max_position = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  /// One entry a layer: position t sees t - window + 1 .. t; 0 means all earlier positions.
  std::vector<std::int64_t> sliding_window;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;  ///< RMS norm of each q and k head before the rotation (Qwen3)
  /// A projection with a pair has no frozen weight: W0 = 0, its factors are the whole layer. Of no model file: for
  /// models that are trained from nothing.
  bool without_base = false;
  std::optional<std::int64_t> bos_id;
  std::vector<std::int64_t> eos_ids;
  std::optional<std::int64_t> pad_id;
  std::optional<DType> stored_dtype;  ///< what config.json says the weights are; empty for GGUF

  [[nodiscard]] std::int64_t q_size() const { return num_heads * head_dim; }      ///< rows of q_proj
  [[nodiscard]] std::int64_t kv_size() const { return num_kv_heads * head_dim; }  ///< rows of k_proj and of v_proj
};

/// Reads a Hugging Face config.json, both spellings (rope_theta, rope_scaling, torch_dtype at the top; or
/// rope_parameters, dtype). Missing keys take the defaults of that architecture in transformers 5.
/// Throws FileError, FormatError (`where`: path and key), UnsupportedError (names the feature).
ModelConfig read_hf_config(const std::filesystem::path& config_json);

/// Reads the metadata and the tensor table of a GGUF of architecture llama (also Mistral), qwen2 or qwen3.
/// Throws FormatError, UnsupportedError.
ModelConfig read_gguf_config(const GgufFile& file);

/// Checks every number against the others. `where` is what an error will name. Throws FormatError.
void validate(const ModelConfig& config, const std::string& where);

/// Angle per position of each rotary pair: [head_dim / 2], computed in double.
/// default: theta^(-2i/d); linear: that / factor; llama3: long wavelengths are divided by factor, short ones kept,
/// those between interpolated (Llama 3.1 model card; transformers' `_compute_llama3_parameters`).
std::vector<double> rope_inverse_frequencies(const ModelConfig& config);

}  // namespace lomu

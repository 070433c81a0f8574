#include "models/files/model_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/error.h"
#include "models/files/atomic_file.h"
#include "models/files/file_error.h"
#include "models/files/hf_config_writer.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

// What belongs to a model besides configuration and weights.
constexpr std::array<std::string_view, 15> kCopied{
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "USE_POLICY.md",
};

constexpr std::int64_t kPieceElements = std::int64_t{1} << 22;  // 16 MiB of floats

void copy_companions(const fs::path& from, const fs::path& to) {
  for (const std::string_view name : kCopied) {
    if (!fs::is_regular_file(from / name)) continue;
    std::error_code error;
    fs::copy_file(from / name, to / name, error);
    if (error) throw_file_error("copy", from / name, error.value());
  }
}

std::string generation_config(const ModelConfig& config) {
  nlohmann::ordered_json json;
  json["_from_model_config"] = true;
  if (config.bos_id) json["bos_token_id"] = *config.bos_id;
  if (config.eos_ids.size() == 1) json["eos_token_id"] = config.eos_ids.front();
  if (config.eos_ids.size() > 1) json["eos_token_id"] = config.eos_ids;
  if (config.pad_id) json["pad_token_id"] = *config.pad_id;
  return json.dump(2) + "\n";
}

std::vector<TensorSpec> tensors_of(const ModelConfig& config, DType dtype) {
  std::vector<TensorSpec> tensors;
  for (const WeightId id : weights_of(config)) tensors.push_back({hf_name(id), dtype, shape_of(config, id).dims()});
  return tensors;
}

// Sums over all weights while they pass by.
struct Rounding {
  double error_squares = 0;
  double squares = 0;
  RoundingReport report;

  void add(std::span<const float> values, DType dtype, const std::string& tensor) {
    for (const float value : values) {
      if (!std::isfinite(value)) throw NumericError("NaN or infinity in a weight to be written", tensor);
      const double error = static_cast<double>(stored_value(value, dtype)) - static_cast<double>(value);
      squares += static_cast<double>(value) * static_cast<double>(value);
      error_squares += error * error;
      if (std::abs(error) > report.largest_error) {
        report.largest_error = std::abs(error);
        report.tensor = tensor;
      }
    }
  }
};

void write_shard(const fs::path& path, const FileShardPlan::Shard& shard, const ModelConfig& config,
                 const RowSource& rows, Rounding& rounding) {
  SafetensorsWriter writer(path, shard.tensors);
  std::vector<float> piece;
  for (const TensorSpec& tensor : writer.tensors()) {
    const WeightId id = *parse_hf_name(tensor.name);
    const WeightShape shape = shape_of(config, id);
    const std::int64_t step = std::max<std::int64_t>(1, kPieceElements / shape.cols);
    for (std::int64_t first = 0; first < shape.rows; first += step) {
      const std::int64_t count = std::min(step, shape.rows - first);
      piece.resize(static_cast<std::size_t>(count * shape.cols));
      rows(id, first, count, piece);
      rounding.add(piece, tensor.dtype, tensor.name);
      writer.write(piece);
    }
  }
  writer.commit();
}

// A generated config.json must mean the model it was made from.
void check_written(const fs::path& folder, const ModelConfig& source) {
  const ModelConfig written = ModelFiles::open(folder).config();
  const auto a = rope_inverse_frequencies(source);
  const auto b = rope_inverse_frequencies(written);
  const bool same_rope = std::equal(a.begin(), a.end(), b.begin(), b.end(),
                                    [](double x, double y) { return std::abs(x / y - 1.0) < 1e-5; });
  const bool same =
      same_rope && written.sliding_window == source.sliding_window && written.num_heads == source.num_heads &&
      written.num_kv_heads == source.num_kv_heads && written.rms_norm_eps == source.rms_norm_eps &&
      written.tie_word_embeddings == source.tie_word_embeddings && weights_of(written) == weights_of(source);
  if (!same) throw Error("config.json reads back as another model than the source", (folder / "config.json").string());
}

}  // namespace

RoundingReport write_model_folder(const fs::path& folder, const ModelFiles& source, const RowSource& rows,
                                  const ModelWriterOptions& options) {
  if (options.dtype != DType::kF32 && options.dtype != DType::kF16 && options.dtype != DType::kBF16) {
    throw UsageError(fmt::format("weights are stored as f32, f16 or bf16, not {}", name_of(options.dtype)),
                     folder.string());
  }
  const ModelConfig& config = source.config();
  // A GGUF, or a model that is nowhere, has no folder to copy from.
  const bool is_folder = source.gguf() == nullptr && !source.nowhere();
  const std::string config_text = is_folder ? config_json_with_dtype(source.path() / "config.json", options.dtype)
                                            : config_json_from(config, options.dtype);

  AtomicFolder output(folder, options.replace ? IfExists::kReplace : IfExists::kRefuse);
  write_file(output.path() / "config.json", config_text);
  if (is_folder) {
    copy_companions(source.path(), output.path());
  } else {
    write_file(output.path() / "generation_config.json", generation_config(config));
  }
  const FileShardPlan plan = plan_file_shards(tensors_of(config, options.dtype), options.max_shard_bytes);
  Rounding rounding;
  for (const FileShardPlan::Shard& shard : plan.shards)
    write_shard(output.path() / shard.file, shard, config, rows, rounding);
  if (!plan.index.empty()) write_file(output.path() / "model.safetensors.index.json", plan.index);
  if (options.write_tokenizer) options.write_tokenizer(output.path());
  check_written(output.path(), config);
  output.commit();
  if (rounding.squares > 0) rounding.report.relative_error = std::sqrt(rounding.error_squares / rounding.squares);
  return rounding.report;
}

}  // namespace lomu

// One model on disk, a Hugging Face folder or a GGUF file, read the same way: by weight, as float32, in Hugging Face's
// orientation and rotate-half layout. Every tensor was matched to the registry and its shape checked before `open`
// returns. Holds no weights in memory: reads come from read-only mappings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/encoded_rows.h"
#include "models/files/model_config.h"
#include "models/files/names.h"

namespace lomu {

class GgufFile;
struct UntrainedModel;

class ModelFiles {
 public:
  /// `path`: a folder with config.json and safetensors (one file, or shards with an index), or a .gguf file.
  /// Throws FileError, FormatError (missing, unexpected or misshapen tensor, by name), UnsupportedError.
  static ModelFiles open(const std::filesystem::path& path);
  /// A model that is nowhere: the shapes of a config.json and random weights (random_weights.h), made as they are read.
  /// For measurements. Throws what read_hf_config throws.
  static ModelFiles random(const std::filesystem::path& config_json);

  /// A model that is nowhere and was never trained: what untrained.h says of it, made as it is read. Throws what
  /// config_of throws.
  static ModelFiles untrained(const UntrainedModel& model);

  ModelFiles(ModelFiles&&) noexcept;
  ModelFiles& operator=(ModelFiles&&) noexcept;
  ModelFiles(const ModelFiles&) = delete;
  ModelFiles& operator=(const ModelFiles&) = delete;
  ~ModelFiles();

  [[nodiscard]] const ModelConfig& config() const;
  [[nodiscard]] const std::filesystem::path& path() const;

  /// Whether no file is behind this model: random() or untrained().
  [[nodiscard]] bool nowhere() const;
  /// The GGUF behind this model (its tokenizer is in there), or null for a folder.
  [[nodiscard]] const GgufFile* gguf() const;

  /// Whether a tensor of its own is stored for this weight. False for the head of a tied model.
  [[nodiscard]] bool has(WeightId id) const;

  /// The stored element type, "bf16", "q4_1": for messages and `inspect`. A tied head answers for the embedding.
  [[nodiscard]] std::string stored_type(WeightId id) const;

  /// Reads a whole weight: out is row-major, shape_of(config(), id).size() floats. Widening from f16, bf16 and every
  /// quantised type is exact where f32 can hold it. The head of a tied model reads the embedding.
  /// Safe to call from several threads. Throws FormatError if the model has no such weight.
  void read(WeightId id, std::span<float> out) const;

  /// Reads rows [first, first + count): out is [count, cols]. Safe to call from several threads.
  void read_rows(WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) const;

  /// The same rows as they are stored, in Hugging Face's order: where they lie in the file if that order is the file's,
  /// else in `space`, which must stay as it is while they are used. Safe to call from several threads, each with a
  /// space of its own.
  [[nodiscard]] EncodedRows encoded_rows(WeightId id, std::int64_t first, std::int64_t count,
                                         std::vector<std::byte>& space) const;

  /// Lets the operating system take back the pages of this weight once it has been copied.
  void drop_pages(WeightId id) const;

  /// Token ids that end a generation: those of config.json or the GGUF, and of generation_config.json when there is
  /// one.
  [[nodiscard]] const std::vector<std::int64_t>& stop_ids() const;

  [[nodiscard]] std::int64_t parameter_count() const;
  /// Bytes of all weights as stored.
  [[nodiscard]] std::uint64_t stored_bytes() const;
  /// Stored tensors that carry nothing the model needs (rotary buffers, a redundant tied head).
  [[nodiscard]] const std::vector<std::string>& ignored_tensors() const;

  /// 16 hex digits over configuration, sizes, headers and sampled bytes of every file: for cache keys. It notices
  /// another model or another quantisation; it is no proof against tampering (see sha256_of_file).
  [[nodiscard]] std::string fingerprint() const;

 private:
  struct Impl;
  explicit ModelFiles(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lomu

// Writing a whole model as a Hugging Face folder, for example with an adapter merged into it. Values come from the
// caller in pieces of rows; nothing here knows of adapters. Never holds more than one piece in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "kernels/dtype.h"
#include "models/files/model_files.h"
#include "models/files/safetensors_writer.h"

namespace lomu {

/// Fills `out` with rows [first, first + count) of a weight: [count, cols] f32, Hugging Face's orientation.
using RowSource = std::function<void(WeightId id, std::int64_t first, std::int64_t count, std::span<float> out)>;

struct ModelWriterOptions {
  DType dtype = DType::kBF16;  ///< f32, f16 or bf16
  bool replace = false;        ///< an existing folder is refused unless this is set
  std::uint64_t max_shard_bytes = kMaxShardBytes;
  /// Called with the folder before it gets its name, to write tokenizer files when the source is a GGUF. May be empty.
  std::function<void(const std::filesystem::path& folder)> write_tokenizer;
};

/// What rounding to the stored type did.
struct RoundingReport {
  double largest_error = 0;   ///< largest |stored - given| of all elements
  std::string tensor;         ///< where that was
  double relative_error = 0;  ///< Frobenius norm of (stored - given) over that of given, all weights together
};

/// Writes config.json (the source's own with the new dtype; generated for a GGUF or a new model),
/// generation_config.json, the tokenizer's and licence files of a source folder, and safetensors with Hugging Face's
/// names, in shards when large. The folder appears whole or not at all, after it was opened again and every name and
/// shape was checked. Throws FileError, UsageError, NumericError (NaN, infinity, or beyond f16; names the tensor),
/// UnsupportedError.
RoundingReport write_model_folder(const std::filesystem::path& folder, const ModelFiles& source, const RowSource& rows,
                                  const ModelWriterOptions& options);

}  // namespace lomu

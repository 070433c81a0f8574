// A LoRA adapter as a PEFT folder: adapter_config.json and adapter_model.safetensors. Reads what PEFT saves for plain
// LoRA on the seven projections, refuses every other feature by name, and writes what PEFT loads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "models/files/model_config.h"
#include "models/files/names.h"

namespace lomu {

/// One adapted linear layer: W x + scale * B (A x).
struct AdapterPair {
  std::int64_t layer = 0;
  Site site = Site::kQ;
  std::int64_t r = 0;
  double alpha = 0;
  double scale = 0;      ///< alpha / r, or alpha / sqrt(r) for rsLoRA
  std::vector<float> a;  ///< [r, in]
  std::vector<float> b;  ///< [out, r]
};

/// A weight that was trained in full and replaces the model's (PEFT's modules_to_save).
struct FullWeight {
  WeightId weight;
  std::vector<float> values;  ///< [rows, cols]
};

/// A whole adapter; pairs are sorted by layer, then by site, full weights by their place in the registry.
struct AdapterFile {
  std::string base_model;  ///< base_model_name_or_path; may be empty
  bool use_rslora = false;
  double dropout = 0;
  std::vector<AdapterPair> pairs;
  std::vector<FullWeight> full;
};

/// Reads `folder` for a model of this configuration. Every site that the configuration targets must have both factors,
/// every stored tensor must belong to a targeted site, and every shape must fit. Throws FileError, FormatError (names
/// tensor and shapes), UnsupportedError (names the PEFT feature).
AdapterFile read_peft_adapter(const std::filesystem::path& folder, const ModelConfig& config);

/// Writes `folder` (whole or not at all), then reads it back and compares bit for bit with what `dtype` can hold.
/// dtype: f32, f16 or bf16. An existing folder is refused unless `replace`.
/// Each pair's scale must be alpha / r or alpha / sqrt(r), as use_rslora says. Throws FileError, FormatError,
/// UsageError.
void write_peft_adapter(const std::filesystem::path& folder, const AdapterFile& adapter, const ModelConfig& config,
                        DType dtype = DType::kF32, bool replace = false);

}  // namespace lomu

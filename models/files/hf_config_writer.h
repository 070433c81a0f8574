// The config.json of a model that goes into a Hugging Face folder: the source's own with another dtype, or one made
// from a GGUF's numbers.
#pragma once

#include <filesystem>
#include <string>

#include "kernels/dtype.h"
#include "models/files/model_config.h"

namespace lomu {

/// The source's config.json with torch_dtype (or dtype, as it is spelled there) set to `dtype`; every other key
/// unchanged and in its order. Throws FileError, FormatError.
std::string config_json_with_dtype(const std::filesystem::path& source_config_json, DType dtype);

/// A config.json that read_hf_config and transformers read as this model. Throws UnsupportedError when Hugging Face's
/// classes have no place for something (biases on q but not on o, rope frequency factors that are not Llama 3's).
std::string config_json_from(const ModelConfig& config, DType dtype);

}  // namespace lomu

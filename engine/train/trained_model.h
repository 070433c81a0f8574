// What a run leaves behind: a PEFT adapter where it trained one of a model that somebody has, a model of its own where
// it trained one from nothing, or weights in full alone.
#pragma once

#include <filesystem>

#include "kernels/dtype.h"
#include "models/decoder/adapter_set.h"
#include "models/files/model_files.h"

namespace lomu {

/// Whether the run makes a whole model: its base is no file, or it has no pair.
bool makes_a_model(const AdapterSet& adapters, const ModelFiles& files);

/// The model with everything that was trained in it as a Hugging Face folder, with tokenizer: weights trained in full
/// as they are, W0 + s P Q^T (summed in double, W0 = 0 without a base), the others as in `files`. Replaces what is
/// there. Throws what write_model_folder throws.
void write_trained_model(const std::filesystem::path& folder, const AdapterSet& adapters, const ModelFiles& files,
                         DType dtype);

}  // namespace lomu

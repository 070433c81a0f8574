// Where an adapter lies: users name the folder of a run, of a checkpoint, or a PEFT folder, and mean the adapter in it.
#pragma once

#include <filesystem>
#include <string>

#include "models/files/model_config.h"
#include "models/files/peft_adapter.h"

namespace lomu {

/// The PEFT folder that `path` means: itself if it holds adapter_config.json, else its `adapter` folder (a run, a
/// checkpoint). Throws FileError that says what was looked for.
std::filesystem::path find_adapter_folder(const std::filesystem::path& path);

/// The base model that the adapter's configuration names; empty if it names none. Throws FileError, FormatError.
std::string base_model_of(const std::filesystem::path& adapter_folder);

/// find_adapter_folder, then read_peft_adapter. A model that does not fit is an error that names both.
AdapterFile load_adapter(const std::filesystem::path& path, const ModelConfig& config);

}  // namespace lomu

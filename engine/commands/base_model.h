// The base model of an adapter, for commands that look at an adapter's files without computing with it.
#pragma once

#include <filesystem>

#include "models/files/model_files.h"

namespace lomu {

/// Opens `model`, or where that is empty the base model that the adapter's own configuration names. `adapter_folder`
/// as find_adapter_folder() gives it. Throws UsageError when neither leads to files on this machine, and what
/// ModelFiles::open throws.
ModelFiles open_base_model(const std::filesystem::path& model, const std::filesystem::path& adapter_folder);

}  // namespace lomu

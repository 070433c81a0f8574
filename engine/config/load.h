// From a YAML file and overrides to a checked TrainConfig. The only way in: what comes out of here needs no more checks
// that can be made without reading the model or the data.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "engine/config/problems.h"
#include "engine/config/train_config.h"

namespace lomu::config {

/// Reads `file` and then the overrides (key.path=value), fills in defaults, checks values one by one and against each
/// other. Relative paths stay relative: they are meant from the current directory. ConfigError with every problem
/// found; UsageError if the file cannot be read as text.
TrainConfig load_config(const std::filesystem::path& file, std::span<const std::string> overrides = {});

/// The same for YAML text at hand; `name` stands for the file in messages.
TrainConfig parse_config(std::string_view text, const std::string& name, std::span<const std::string> overrides = {});

}  // namespace lomu::config

// Writes a configuration as a YAML file that says everything: each key that has an effect, with its meaning as a
// comment. Reading it back gives the same TrainConfig, so a run can be repeated from its output folder.
#pragma once

#include <string>

#include "engine/config/train_config.h"

namespace lomu::config {

/// `config` as load.h returned it. Keys without a value, and those that have no effect, are left out.
std::string resolved_yaml(const TrainConfig& config);

}  // namespace lomu::config

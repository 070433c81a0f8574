// The options that say where and how something is computed: the same words in every command, and the same as in a job's
// `runtime` section.
#pragma once

#include "engine/config/train_config.h"

namespace CLI {
class App;
}

namespace lomu {

struct ComputeOptions {
  config::DeviceName device = config::DeviceName::kAuto;
  config::BackendName backend = config::BackendName::kAuto;
  config::ComputeType dtype = config::ComputeType::kAuto;
  int threads = 0;  ///< 0: all cores
};

/// Adds --device, --backend, --dtype and --threads to `command`.
void declare(CLI::App& command, ComputeOptions& options);

}  // namespace lomu

// The options that say where and how something is computed: the same words in every command, and the same as in a job's
// `runtime` section.
#pragma once

#include <optional>
#include <string>

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

/// Adds --device alone, for a command that leaves the rest no choice. The optional one stays empty if it is not named.
void declare_device(CLI::App& command, config::DeviceName& device, const std::string& meaning);
void declare_device(CLI::App& command, std::optional<config::DeviceName>& device, const std::string& meaning);

/// Adds --device, --backend, --dtype and --threads to `command`.
void declare(CLI::App& command, ComputeOptions& options);

}  // namespace lomu

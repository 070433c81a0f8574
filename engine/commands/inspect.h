// `lomu inspect`: looks into a model, an adapter, or an example as training would see it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "engine/config/train_config.h"
#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

/// One of model, adapter and example is set; a model may stand beside an adapter to name its sites' shapes.
struct InspectOptions {
  std::filesystem::path model;
  std::filesystem::path adapter;
  std::filesystem::path example;  ///< a job's YAML file
  std::int64_t index = 0;         ///< which record of its training data, from 0
  bool json = false;
  std::optional<config::DeviceName> device;  ///< of which a model's view says what it has room for
};

/// Adds `inspect` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, InspectOptions& options);

Exit run_inspect(const InspectOptions& options);

}  // namespace lomu

// `lomu train`: runs the job of a YAML file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

struct TrainOptions {
  std::filesystem::path config;
  std::vector<std::string> overrides;  ///< key.path=value
  bool resume = false;                 ///< go on from the last checkpoint of output.dir
  bool print_config = false;           ///< print the resolved configuration and stop
};

/// Adds `train` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, TrainOptions& options);

Exit run_train(const TrainOptions& options);

}  // namespace lomu

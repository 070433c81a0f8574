// `lomu plan`: what a job will take of memory, by purpose and level of recomputation, without loading the model.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

struct PlanOptions {
  std::filesystem::path config;
  std::vector<std::string> overrides;  ///< key.path=value
  bool json = false;
};

/// Adds `plan` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, PlanOptions& options);

Exit run_plan(const PlanOptions& options);

}  // namespace lomu

// What is wrong with a configuration: every problem found, not only the first.
#pragma once

#include <string>
#include <vector>

#include "kernels/error.h"

namespace lomu::config {

/// One mistake, in the parts of lomu::Error. where: "job.yaml:12 (adapter.rank)" or "command line: adapter.rank=0".
struct Problem {
  std::string what;
  std::string where;
  std::string hint;
  int line = 0;  ///< of the file, from 1; 0: not a line of the file
};

/// Thrown with at least one problem. As a plain Error it shows the first; main prints them all.
class ConfigError : public UsageError {
 public:
  explicit ConfigError(std::vector<Problem> problems)
      : UsageError(problems.at(0).what, problems.at(0).where, problems.at(0).hint), problems_(std::move(problems)) {}
  [[nodiscard]] const std::vector<Problem>& problems() const noexcept { return problems_; }

 private:
  std::vector<Problem> problems_;
};

}  // namespace lomu::config

// `lomu study`: runs a job over a grid and writes what that shows.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

struct StudyOptions {
  std::filesystem::path file;
  std::vector<std::string> settings;  ///< key.path=value for every run
  std::filesystem::path out;          ///< empty: runs/study-NAME
  int jobs = 0;                       ///< runs at once; 0: one for each core
  bool quick = false;
  bool list = false;  ///< print the runs and stop
};

/// Adds `study` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, StudyOptions& options);

Exit run_study(const StudyOptions& options);

}  // namespace lomu

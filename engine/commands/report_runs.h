// `lomu report`: one page of one or several runs.
#pragma once

#include <filesystem>
#include <vector>

#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

struct ReportOptions {
  std::vector<std::filesystem::path> runs;
  std::filesystem::path out;  ///< empty: report.html
};

/// Adds `report` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, ReportOptions& options);

Exit run_report(const ReportOptions& options);

}  // namespace lomu

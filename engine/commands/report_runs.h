// `lomu report`: one page of one or several runs.
#pragma once

#include <filesystem>
#include <vector>

#include "engine/commands/compute_options.h"
#include "kernels/error.h"

namespace lomu {

struct ReportOptions {
  std::vector<std::filesystem::path> runs;
  std::filesystem::path out;  ///< empty: report.html
  int samples = 0;            ///< records of each run that its models are asked to answer
  int sample_tokens = 64;     ///< of each answer
  ComputeOptions compute;     ///< of the answers
};

/// Adds `report` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, ReportOptions& options);

Exit run_report(const ReportOptions& options);

}  // namespace lomu

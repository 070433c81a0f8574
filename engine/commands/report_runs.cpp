#include "engine/commands/report_runs.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <string>

#include "engine/commands/commit.h"
#include "engine/config/terminal.h"
#include "engine/report/make_samples.h"
#include "engine/report/run_page.h"
#include "models/files/atomic_file.h"

namespace lomu {
namespace {

void warn(const std::filesystem::path& run, const MissingSample& missing) {
  const Style style = style_for(stderr);
  fmt::print(stderr, "lomu: {} {}: {}\n", style.yellow("warning:"), run.string(), missing.what);
  if (!missing.where.empty()) fmt::print(stderr, "  {} {}\n", style.dim("where:"), missing.where);
  if (!missing.hint.empty()) fmt::print(stderr, "  {} {}\n", style.dim("hint:"), missing.hint);
}

std::vector<RunSamples> samples_of(const std::vector<RunHistory>& runs, const ReportOptions& options) {
  if (options.samples == 0) return {};
  const ComputeRequest compute{options.compute.device, options.compute.backend, options.compute.dtype,
                               options.compute.threads};
  std::vector<RunSamples> samples =
      make_samples(runs, {options.samples, options.sample_tokens, compute},
                   [](const std::string& what) { fmt::print(stderr, "samples    {}\n", what); });
  for (std::size_t i = 0; i < runs.size(); ++i) {
    for (const MissingSample& missing : samples[i].missing) warn(runs[i].folder, missing);
  }
  return samples;
}

}  // namespace

Exit run_report(const ReportOptions& options) {
  std::vector<RunHistory> runs;
  std::string command = "lomu report";
  for (const auto& folder : options.runs) {
    runs.push_back(read_run(folder));
    command += fmt::format(" {}", folder.string());
  }
  if (options.samples > 0) command += fmt::format(" --samples {}", options.samples);
  const std::vector<RunSamples> samples = samples_of(runs, options);
  const auto out = options.out.empty() ? std::filesystem::path("report.html") : options.out;
  const std::string provenance =
      fmt::format("{}; commit {}; {:%Y-%m-%d %H:%M} UTC", command, commit(), fmt::gmtime(std::time(nullptr)));
  write_file(out, page_of_runs(runs, provenance, samples));
  fmt::print(stderr, "page       {}\n", out.string());
  return Exit::kDone;
}

}  // namespace lomu

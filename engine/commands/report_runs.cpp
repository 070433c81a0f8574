#include "engine/commands/report_runs.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <string>

#include "engine/commands/commit.h"
#include "engine/report/run_page.h"
#include "models/files/atomic_file.h"

namespace lomu {

Exit run_report(const ReportOptions& options) {
  std::vector<RunHistory> runs;
  std::string command = "lomu report";
  for (const auto& folder : options.runs) {
    runs.push_back(read_run(folder));
    command += fmt::format(" {}", folder.string());
  }
  const auto out = options.out.empty() ? std::filesystem::path("report.html") : options.out;
  const std::string provenance =
      fmt::format("{}; commit {}; {:%Y-%m-%d %H:%M} UTC", command, commit(), fmt::gmtime(std::time(nullptr)));
  write_file(out, page_of_runs(runs, provenance));
  fmt::print(stderr, "page       {}\n", out.string());
  return Exit::kDone;
}

}  // namespace lomu

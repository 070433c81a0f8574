#include <CLI/CLI.hpp>

#include "engine/commands/report_runs.h"

namespace lomu {

CLI::App& declare(CLI::App& program, ReportOptions& options) {
  CLI::App& command = *program.add_subcommand("report", "Make one HTML page of one or several runs");
  command.add_option("runs", options.runs, "Folders of runs")->required()->type_name("RUN...");
  command.add_option("--out", options.out, "The page to write [report.html]")->type_name("FILE");
  command.footer(
      "The page is one file without scripts that opens anywhere. Runs that still go on can be looked at too.\n"
      "Examples:\n"
      "  lomu report runs/quickstart\n"
      "  lomu report runs/rank-8 runs/rank-32 --out ranks.html");
  return command;
}

}  // namespace lomu

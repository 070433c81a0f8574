#include <CLI/CLI.hpp>

#include "engine/commands/report_runs.h"

namespace lomu {

CLI::App& declare(CLI::App& program, ReportOptions& options) {
  CLI::App& command = *program.add_subcommand("report", "Make one HTML page of one or several runs");
  command.add_option("runs", options.runs, "Folders of runs")->required()->type_name("RUN...");
  command.add_option("--out", options.out, "The page to write [report.html]")->type_name("FILE");
  auto* samples = command
                      .add_option("--samples", options.samples,
                                  "Show so many records of each run's data, and what is answered before and after it")
                      ->check(CLI::Range(0, 1000))
                      ->capture_default_str()
                      ->type_name("N");
  command.add_option("--sample-tokens", options.sample_tokens, "Longest answer to them")
      ->check(CLI::Range(1, 1 << 20))
      ->needs(samples)
      ->capture_default_str()
      ->type_name("N");
  declare(command, options.compute);
  command.footer(
      "The page is one file without scripts that opens anywhere. Runs that still go on can be looked at too.\n"
      "Only --samples computes: it loads the models, by the paths of the runs' configurations.\n"
      "Examples:\n"
      "  lomu report runs/quickstart --samples 5\n"
      "  lomu report runs/rank-8 runs/rank-32 --out ranks.html");
  return command;
}

}  // namespace lomu

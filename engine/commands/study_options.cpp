#include <CLI/CLI.hpp>

#include "engine/commands/study.h"

namespace lomu {

CLI::App& declare(CLI::App& program, StudyOptions& options) {
  CLI::App& command = *program.add_subcommand("study", "Run a job over a grid, and say what that shows");
  command.add_option("file", options.file, "The study")->required()->type_name("FILE.yaml");
  command.add_option("settings", options.settings, "Keys set for every run")->type_name("key.path=value");
  command.add_option("--out", options.out, "Folder of the results [runs/study-NAME]")->type_name("FOLDER");
  command.add_option("--jobs", options.jobs, "Runs at once [0: one for each core]")
      ->check(CLI::Range(0, 4096))
      ->type_name("N");
  command.add_flag("--quick", options.quick, "The study's short form");
  command.add_flag("--list", options.list, "Print the runs and stop");
  command.footer(
      "An interrupted study goes on where it was when it is started again. Ranks of mpirun share the runs.\n"
      "Examples:\n"
      "  lomu study configs/studies/rank.yaml --quick\n"
      "  lomu study configs/studies/rank.yaml --jobs 8 --out bench/results/studies/rank\n"
      "  mpirun -np 4 lomu study configs/studies/finetune.yaml --jobs 1 model.path=models/mine");
  return command;
}

}  // namespace lomu

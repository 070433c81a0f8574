#include <CLI/CLI.hpp>

#include "engine/commands/train.h"

namespace lomu {

CLI::App& declare(CLI::App& program, TrainOptions& options) {
  CLI::App& command = *program.add_subcommand("train", "Finetune a model as a YAML file says");
  command.add_option("config", options.config, "The job")->required()->type_name("FILE.yaml");
  command.add_option("overrides", options.overrides, "Keys set in place of the file's")->type_name("key.path=value");
  command.add_flag("--resume", options.resume, "Go on from the last checkpoint in output.dir");
  command.add_flag("--print-config", options.print_config, "Print the resolved configuration and stop");
  command.footer(
      "Examples:\n"
      "  lomu train configs/quickstart.yaml\n"
      "  mpirun -np 2 lomu train configs/quickstart.yaml optimizer.lr=0.02 output.dir=runs/lr-0.02\n"
      "  lomu train configs/quickstart.yaml adapter.targets=q,v training.steps=50 --print-config");
  return command;
}

}  // namespace lomu

#include <CLI/CLI.hpp>

#include "engine/commands/plan.h"

namespace lomu {

CLI::App& declare(CLI::App& program, PlanOptions& options) {
  CLI::App& command = *program.add_subcommand("plan", "Say what memory a job will take, without loading its model");
  command.add_option("config", options.config, "The job")->required()->type_name("FILE.yaml");
  command.add_option("overrides", options.overrides, "Keys set in place of the file's")->type_name("key.path=value");
  command.add_flag("--json", options.json, "One JSON object instead of a table");
  command.footer(
      "model.path may also be a config.json alone.\n"
      "Examples:\n"
      "  lomu plan configs/quickstart.yaml\n"
      "  lomu plan configs/quickstart.yaml training.micro_batch_tokens=8192 --json");
  return command;
}

}  // namespace lomu

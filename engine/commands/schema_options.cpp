#include <CLI/CLI.hpp>

#include "engine/commands/schema.h"

namespace lomu {

CLI::App& declare(CLI::App& program, SchemaOptions& options) {
  CLI::App& command = *program.add_subcommand("schema", "List every key of a job's YAML file");
  auto* json = command.add_flag("--json", options.json, "JSON Schema (draft 2020-12), for editors");
  command.add_flag("--markdown", options.markdown, "Tables, as in docs/configuration.md")->excludes(json);
  command.footer(
      "Examples:\n"
      "  lomu schema\n"
      "  lomu schema --json > lomu.schema.json\n"
      "  (then, on the first line of a job: # yaml-language-server: $schema=lomu.schema.json)");
  return command;
}

}  // namespace lomu

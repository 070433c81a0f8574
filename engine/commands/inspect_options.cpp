#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>

#include "engine/commands/compute_options.h"
#include "engine/commands/inspect.h"

namespace lomu {

CLI::App& declare(CLI::App& program, InspectOptions& options) {
  CLI::App& command = *program.add_subcommand("inspect", "Look into a model, an adapter, or a tokenised example");
  auto* model = command.add_option("--model", options.model, "Architecture, parameters, types, sites for an adapter")
                    ->type_name("PATH");
  auto* adapter = command.add_option("--adapter", options.adapter, "Ranks, norms and spectrum of s P Q^T by site")
                      ->type_name("PATH");
  auto* example = command
                      .add_option("--example", options.example,
                                  "A record of this job's training data: each token, its role, what is supervised")
                      ->excludes(model)
                      ->excludes(adapter)
                      ->type_name("FILE.yaml");
  command.add_option("--index", options.index, "Which record, from 0")
      ->needs(example)
      ->check(CLI::Range(std::int64_t{0}, std::numeric_limits<std::int64_t>::max()))
      ->capture_default_str()
      ->type_name("N");
  declare_device(command, options.device,
                 "Also say what a model's weights take there, and what is free. Norms and spectra are computed by the "
                 "CPU, in double [none is looked for]");
  command.add_flag("--json", options.json, "One JSON object instead of text");
  command.parse_complete_callback([&options] {
    if (!options.model.empty() || !options.adapter.empty() || !options.example.empty()) return;
    throw UsageError("nothing to inspect", "command line", "give --model, --adapter or --example");
  });
  command.footer(
      "Examples:\n"
      "  lomu inspect --model SmolLM2.gguf\n"
      "  lomu inspect --model SmolLM2.gguf --device cuda\n"
      "  lomu inspect --example configs/quickstart.yaml --index 3\n"
      "  lomu inspect --adapter runs/quickstart");
  return command;
}

}  // namespace lomu

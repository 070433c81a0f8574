#include <CLI/CLI.hpp>

#include "engine/commands/choice_option.h"
#include "engine/commands/verify.h"

namespace lomu {

CLI::App& declare(CLI::App& program, VerifyOptions& options) {
  CLI::App& command = *program.add_subcommand("verify", "Check this build against cases with known answers");
  add_choice<VerifyKind>(
      command, "what", options.kind,
      {{"lora-muon", VerifyKind::kLoraMuon}, {"model", VerifyKind::kModel}, {"tokenizer", VerifyKind::kTokenizer}},
      "What the cases are about [everything that ships with the program]");
  command.add_option("path", options.path, "File (lora-muon) or folder (model, tokenizer) of cases")->type_name("PATH");
  auto* weights = command.add_option("--weights", options.weights, "The model of a case that holds results only");
  weights->type_name("PATH");
  command.add_flag("--json", options.json, "One array of {case, quantity, error, tolerance, pass}");
  declare(command, options.compute);
  command.parse_complete_callback([&options, weights] {
    if (options.kind != VerifyKind::kAll && options.path.empty()) {
      throw UsageError("the file or folder of cases is missing", "command line",
                       "as in lomu verify lora-muon FILE.json; lomu verify alone runs the cases that ship with it");
    }
    if (weights->count() > 0 && options.kind != VerifyKind::kModel) {
      throw UsageError("--weights is for model cases", "command line", "as in lomu verify model FOLDER --weights FILE");
    }
  });
  command.footer(
      "Exit code 1 when anything falls short, 2 when a file cannot be read.\n"
      "Examples:\n"
      "  lomu verify\n"
      "  lomu verify lora-muon lora_muon.json\n"
      "  lomu verify model golden/models/qwen3 --backend reference --json");
  return command;
}

}  // namespace lomu

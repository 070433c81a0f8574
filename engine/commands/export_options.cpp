#include <CLI/CLI.hpp>

#include "engine/commands/choice_option.h"
#include "engine/commands/compute_options.h"
#include "engine/commands/export.h"

namespace lomu {

CLI::App& declare(CLI::App& program, ExportOptions& options) {
  using config::StoredType;
  CLI::App& command = *program.add_subcommand("export", "Write an adapter for PEFT, or merge it into its model");
  command.add_option("adapter", options.adapter, "Folder of a run, or a PEFT folder")->required()->type_name("FOLDER");
  command.add_option("--out", options.out, "Folder to write")->required()->type_name("FOLDER");
  command.add_flag("--merged", options.merged, "Write a Hugging Face model with the adapter merged in");
  command.add_option("--model", options.model, "The base model [the one the adapter names]")->type_name("PATH");
  add_choice<std::optional<StoredType>>(
      command, "--dtype", options.dtype,
      {{"f32", StoredType::kF32}, {"bf16", StoredType::kBF16}, {"f16", StoredType::kF16}},
      "Type of the written tensors [f32; merged: as the base]");
  command.add_flag("--overwrite", options.overwrite, "Replace the folder if it exists");
  declare_device(command, options.device, "The processor that merges [auto: a GPU if there is one]");
  command.footer(
      "Examples:\n"
      "  lomu export runs/quickstart --out adapters/records\n"
      "  lomu export runs/quickstart --out models/records --merged --dtype bf16\n"
      "  lomu export runs/records --out models/records --merged --device cuda");
  return command;
}

}  // namespace lomu

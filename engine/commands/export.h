// `lomu export`: an adapter as PEFT reads it, or merged into its model.
#pragma once

#include <filesystem>
#include <optional>

#include "engine/config/train_config.h"
#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

struct ExportOptions {
  std::filesystem::path adapter;  ///< folder of a run, of a checkpoint, or a PEFT folder
  std::filesystem::path out;
  bool merged = false;                      ///< a whole Hugging Face model instead of an adapter
  std::filesystem::path model;              ///< the base; empty: the one that the adapter names
  std::optional<config::StoredType> dtype;  ///< unset: f32 for an adapter, the base's own type for a merged model
  bool overwrite = false;
  config::DeviceName device = config::DeviceName::kAuto;  ///< where a merged model is summed
};

/// Adds `export` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, ExportOptions& options);

Exit run_export(const ExportOptions& options);

}  // namespace lomu

// `lomu verify`: checks a build against cases with known answers.
#pragma once

#include <filesystem>

#include "engine/commands/compute_options.h"
#include "kernels/error.h"

namespace lomu {

enum class VerifyKind { kAll, kLoraMuon, kModel, kTokenizer };

struct VerifyOptions {
  VerifyKind kind = VerifyKind::kAll;  ///< kAll: the cases that ship with the program
  std::filesystem::path path;          ///< file or folder of cases; empty with kAll only
  std::filesystem::path weights;       ///< the model of a case that holds results only; empty: none
  bool json = false;
  ComputeOptions compute;
};

/// Adds `verify` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, VerifyOptions& options);

Exit run_verify(const VerifyOptions& options);

}  // namespace lomu

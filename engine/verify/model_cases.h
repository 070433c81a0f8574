// Runs a model on cases with known answers and measures how far it is from them: what `lomu verify model FOLDER`
// prints, and what a user of a new machine runs first. Two kinds of case: a small model with weights, adapter and
// everything that can be compared; and results alone, for a real model that the user names.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"

namespace lomu {

struct ModelCheck {
  std::string case_name;
  std::string
      quantity;  ///< the tensor's or field's name in the reference: "logits", "grad.NAME", "prompts.0.greedy_32_ids"
  double error = 0;  ///< norm(x - reference) / norm(reference), or absolute for losses
  double tolerance = 0;
  bool pass = false;
  std::string note;  ///< what a reader should know beside the numbers; usually empty
};

/// The error of a result with NaN or infinity in it: finite, so that it can be written as JSON.
inline constexpr double kNotFinite = 1e300;

/// Checks the case in `folder` (expected.json, expected.safetensors), or every case in its subfolders. `weights`: the
/// model of a case that holds results alone; empty: none. `threads` read the weights; `ops` computes, in `memory`.
/// Throws FileError, FormatError, UsageError (a case needs `weights`, or names another file than it).
std::vector<ModelCheck> verify_model_cases(const std::filesystem::path& folder, const std::filesystem::path& weights,
                                           const Ops& ops, int threads, Memory& memory);

}  // namespace lomu

// Reads files of reference cases of the optimizer: steps with known answers, in JSON, format "lora-muon-vectors/1".
//
//   {"format": "lora-muon-vectors/1", "cases": [{"name", "m", "n", "r", "lr", "scale", "momentum", "weight_decay",
//   "damping",
//     "left", "momentum_left", "grad_left", "expect_left", "expect_momentum_left": m r numbers,
//     "right", "momentum_right", "grad_right", "expect_right", "expect_momentum_right": n r numbers}, ...]}
//
// Arrays are row-major; right is Q, n x r. damping is rho, of the step of Q in a run whose P started at zero, or null.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/optimizers/lora_muon_reference.h"

namespace lomu {

struct LoraMuonCase {
  std::string name;
  ReferenceProblem problem;
  ReferenceState expected;
};

/// FileError when the file cannot be read; FormatError naming file, case and field when its content is wrong.
std::vector<LoraMuonCase> read_lora_muon_cases(const std::filesystem::path& path);

}  // namespace lomu

// Runs the optimizer on reference cases and measures how far it is from the known answers: what `lomu verify lora-muon`
// prints, and what a user of a new machine or a new backend runs first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/optimizers/vector_file.h"
#include "kernels/backend.h"

namespace lomu {

/// kReference: lora_muon_reference.h, all in double. kCpu: the optimizer of a run, float32 storage. A run on a GPU has
/// an optimizer of its own: the Backend.
enum class VectorBackend : std::uint8_t { kReference, kCpu };

struct VectorCheck {
  std::string case_name;
  std::string
      quantity;  ///< the field of the file: expect_left, expect_right, expect_momentum_left, expect_momentum_right
  double error = 0.0;
  double tolerance = 0.0;
  bool pass = false;
  std::string note;  ///< why there is no result, when a backend refused the case; its error is then kNoResult
};

/// The error of a case that gave no result: finite, so that it can be written as JSON.
inline constexpr double kNoResult = 1e300;

/// Four checks a case. Error of x with old value x0 and expected value y:
///   cpu, GPU   ||x - y|| / (||y - x0|| + 0.119 ||y||), tolerance 1e-6: storing y in float32 (2^-23 relative) is no
///   error of
///              the step; plus 4 * 2^-24 cond(momentum) where that is above 1e-6, for backends that round the momentum
///              first;
///   reference  ||x - y|| / ||y - x0||, tolerance 1e-9 (relative to ||y|| where nothing should have moved).
std::vector<VectorCheck> verify_lora_muon(const std::vector<LoraMuonCase>& cases, VectorBackend backend);
/// `device` has steps: it is one of a GPU.
std::vector<VectorCheck> verify_lora_muon(const std::vector<LoraMuonCase>& cases, const Backend& device);

/// The same for a file; throws what read_lora_muon_cases throws.
std::vector<VectorCheck> verify_lora_muon(const std::filesystem::path& path, VectorBackend backend);
std::vector<VectorCheck> verify_lora_muon(const std::filesystem::path& path, const Backend& device);

}  // namespace lomu

// The pairs of factors that an optimizer on the device steps: where their arrays lie and what shape they have. Plain
// descriptions of memory that the engine owns; the device sees them through the tables of a plan (lora_muon.h,
// adamw.h).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/packed_factor.h"

namespace lomu::cuda {

inline constexpr int kMaxRank = 256;

/// One factor on the device; all float32 arrays have its shape and are dense. Fastest where they are 16-byte aligned.
struct FactorArrays {
  float* factor = nullptr;
  const float* grad = nullptr;
  float* first_moment = nullptr;   ///< the momentum of LoRA-Muon, exp_avg of AdamW
  float* second_moment = nullptr;  ///< exp_avg_sq of AdamW; unused by LoRA-Muon
  PackedFactor packed;             ///< written with every step
};

/// The factors of W = W0 + scale P Q^T in PEFT's layout: left is P [m, r] (lora_B), right is Q^T [r, n] (lora_A).
struct PairDesc {
  FactorArrays left;
  FactorArrays right;
  std::int64_t m = 0;
  std::int64_t n = 0;
  int r = 0;
  double scale = 1.0;
  double step_multiplier = 1.0;     ///< of the learning rate: 1, sqrt(m / n), ... (LoRA-Muon)
  bool left_started_zero = false;   ///< P was zero at the start of the run (LoRA-Muon)
  bool right_started_zero = false;  ///< likewise Q
};

/// float64 is exact and free where the device is fast at it (compute capability 8.0, 9.0, 10.0). Others (1/64 rate)
/// take sums of two float32, which carry about 45 bits.
enum class Precision : std::uint8_t { kDouble, kTwoFloat };

/// Refuses (UsageError, naming the pair's index) empty or too large shapes, a rank above kMaxRank, a scale that is not
/// positive, and missing arrays.
void check_pairs(std::span<const PairDesc> pairs, bool needs_second_moment);

}  // namespace lomu::cuda

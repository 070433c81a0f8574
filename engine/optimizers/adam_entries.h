// AdamW's rule for one entry of an array, as PyTorch orders it: what AdamW, LoRA+ and the preconditioned AdamW share.
// Not an optimizer: it knows neither pairs nor groups.
#pragma once

#include <array>
#include <cmath>
#include <span>

#include "engine/optimizers/optimizer.h"

namespace lomu {

/// The state of a pair: first moments of both sides, then second ones. Those of a dense matrix's right side are empty.
inline constexpr std::array<StateSlot, 4> kAdamSlots{{{"exp_avg_left", Extent::kLeft},
                                                      {"exp_avg_right", Extent::kRight},
                                                      {"exp_avg_sq_left", Extent::kLeft},
                                                      {"exp_avg_sq_right", Extent::kRight}}};

/// The numbers of a step that are the same for every entry.
struct AdamRule {
  double lr, keep, clip;  ///< step size; what decay leaves of an entry; factor on gradients
  double beta1, beta2, eps;
  double correction1, correction2_root;  ///< 1 - beta1^t, sqrt(1 - beta2^t)

  /// Moves both moments of an entry by gradient `g` (not yet clipped) and returns the entry's change without decay.
  double change(double g, float& first, float& second) const {
    g *= clip;
    const double avg = beta1 * first + (1.0 - beta1) * g;
    const double avg_sq = beta2 * second + (1.0 - beta2) * g * g;
    first = static_cast<float>(avg);
    second = static_cast<float>(avg_sq);
    return -lr * (avg / correction1) / (std::sqrt(avg_sq) / correction2_root + eps);
  }
};

/// The rule of this step at learning rate `lr`. UsageError for a step before the first.
AdamRule adam_rule(const OptimizerOptions& options, const StepInfo& info, double lr);

/// Squared norms of the gradients and factors of a pair before its step. NumericError, naming pair and step, when one
/// is not finite.
struct NormsBefore {
  double grad = 0.0;  ///< both sides together
  double left = 0.0;
  double right = 0.0;
};
NormsBefore finite_norms(const PairView& pair, const StepInfo& info);

/// Steps both sides of a pair, or a dense matrix, entry by entry, each side by its own rule.
PairReport step_entries(const PairView& pair, const StepInfo& info, const AdamRule& left, const AdamRule& right);

}  // namespace lomu

// Both factors of a pair stepped along the signs of their own directions: what Muon on factors and Spectron share. They
// differ in how far each factor goes.
#pragma once

#include "engine/optimizers/momentum.h"
#include "engine/optimizers/optimizer.h"

namespace lomu {

/// lora_B [m, r] and, as its transpose, lora_A [n, r], with momenta in kMomentumSlots.
struct MovingFactors {
  MovingMatrix left;
  MovingMatrix right;
};
MovingFactors moving_factors(const PairView& pair);

/// How far each factor goes along its sign, and its squared Frobenius norm before.
struct SignReach {
  double left = 0.0;
  double right = 0.0;
  double left_norm_squared = 0.0;
  double right_norm_squared = 0.0;
};

/// P <- (1 - lr lambda) P - reach.left msign(X_P), likewise Q; X: momentum_rule's directions. NumericError when a
/// gradient or momentum is not finite, before anything is written.
PairReport step_along_signs(const PairView& pair, const StepInfo& info, const OptimizerOptions& options,
                            const SignReach& reach);

}  // namespace lomu

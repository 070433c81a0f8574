// Muon (Jordan and others, kellerjordan.github.io/posts/muon) on dense matrices: every singular value of the momentum
// becomes one.
//   m <- beta m + (1 - beta) g,   X = m, with Nesterov beta m + (1 - beta) g
//   W <- (1 - lr lambda) W - lr k msign(X)
// k: sqrt(max(1, rows / columns)) (Jordan), 0.2 sqrt(max(rows, columns)), which gives steps the root mean square of
// AdamW's (arXiv 2502.16982), or 1. msign by the published quintic, by Polar Express, or exact (matrix_sign.h), all
// from the eigenvalues of the Gram of the shorter side in double: its size squared of work space, and about ten times
// its cube of operations. State: 1 float a parameter. A zero gradient moves nothing: msign(0) = 0.
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class Muon final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit Muon(const OptimizerOptions& options) : options_(options) {}

  /// "momentum_left"; the right one is empty.
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  /// Besides check_pairs: refuses vectors (m = 1), which have one singular value, and pairs (muon_factors).
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

}  // namespace lomu

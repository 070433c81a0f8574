// Spectron (Janson, Oyallon, Belilovsky, arXiv 2602.12429): the sign of each factor's momentum, with one step size for
// both that bounds the step of the product.
//   P <- (1 - lr lambda) P - t msign(m_P),   Q <- (1 - lr lambda) Q - t msign(m_Q),
//   t = lr / (sigma_max(P) + sigma_max(Q) + 1)
// so that for lr <= 1, ||dP Q^T + P dQ^T + dP dQ^T||_2 <= t (sigma_max(P) + sigma_max(Q) + t) <= lr. The scale of an
// adapter is not in it: s P Q^T moves by up to s lr. Spectral norms come from the r x r Grams, exact, instead of from
// the paper's power iteration. State: 1 float a parameter. Zero starts need no rule. Any rank. Invariant under
// rotations of the factors alone: rescaling (c P, Q / c) changes both t and the step.
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class Spectron final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit Spectron(const OptimizerOptions& options) : options_(options) {}

  /// "momentum_left", "momentum_right".
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  /// Besides check_pairs: refuses dense matrices.
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

}  // namespace lomu

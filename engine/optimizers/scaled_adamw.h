// Scaled AdamW (Zhang, Pilanci, arXiv 2402.02347): AdamW on gradients preconditioned by the partner's Gram, the
// Riemannian metric of the fixed-rank manifold.
//   h_P = g_P (Q^T Q + delta I)^-1,   h_Q = g_Q (P^T P + delta I)^-1,   each factor by AdamW on h
// The preconditioned gradient alone would move the product invariantly under (P R, Q R^-T); AdamW's entries do not.
// With P = 0 its Gram is delta I: Q's gradient is then zero as well, so nothing is divided by delta but rounding.
// State: 2 floats a parameter. Any rank: delta makes the inverse exist.
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class ScaledAdamW final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit ScaledAdamW(const OptimizerOptions& options) : options_(options) {}

  /// As AdamW.
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  /// Besides check_pairs: refuses dense matrices, which have no partner.
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

}  // namespace lomu

// The core of LoRA-RITE (Yen and others, arXiv 2410.20625) without its second moments: the step in QR coordinates.
//   Q = U R (QR);   X = m_P R^-1, the "unmagnified" momentum, which is what a momentum of W would be in the basis U;
//   P <- q P - (lr / 2 s q) msign(X) R^-T,   likewise Q,   q = sqrt(1 - lr lambda)
// The LoRA-Muon paper (arXiv 2606.12921) shows that this is LoRA-Muon's step: R^-1 is one root of the inverse metric.
// Here it is computed as it is written, by Householder QR of the factors and singular value decompositions in double,
// with no Gram and no Cholesky factor, so each of the two is a check of the other. It is meant for comparison, not for
// speed: factors exist in double as a whole.
// State: 1 float a parameter. Zero starts: LoRA-Muon's damping, which is a QR of the partner with c Q (Q^T Q)^-1 put
// under it. Invariant under (P R, Q R^-T).
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class LoraRiteCore final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit LoraRiteCore(const OptimizerOptions& options) : options_(options) {}

  /// "momentum_left", "momentum_right".
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  /// Refuses what LoRA-Muon refuses.
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

}  // namespace lomu

// Muon (Jordan and others, kellerjordan.github.io/posts/muon) on each factor of a pair by itself, as torch.optim.Muon
// would train PEFT's two matrices: the usual way to use Muon with LoRA, and what LoRA-Muon's metric is measured
// against.
//   m_P <- beta m_P + (1 - beta) g_P,   X_P = m_P, with Nesterov beta m_P + (1 - beta) g_P;   likewise Q
//   P <- (1 - lr lambda) P - lr k msign(X_P),   lora_A <- (1 - lr lambda) lora_A - lr k msign(X_A)
// k goes by the shape of the matrix itself: sqrt(max(1, rows / columns)) (Jordan; rows = out), which is sqrt(m / r) for
// lora_B [m, r] and 1 for lora_A [r, n]; 0.2 sqrt(max(rows, columns)) (arXiv 2502.16982); or 1.
// State: 1 float a parameter. Zero starts need no rule: msign(0) = 0. Any rank. Not invariant under (P R, Q R^-T).
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class MuonFactors final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit MuonFactors(const OptimizerOptions& options) : options_(options) {}

  /// "momentum_left", "momentum_right".
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  /// Besides check_pairs: refuses dense matrices (muon takes those).
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

}  // namespace lomu

// AdamW (Loshchilov and Hutter, arXiv 1711.05101) on the entries of both factors, or of a dense matrix or vector: the
// usual way to train an adapter, and what LoRA-Muon is measured against. Update order and bias correction as in
// PyTorch.
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class AdamW final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit AdamW(const OptimizerOptions& options) : options_(options) {}

  /// "exp_avg_left", "exp_avg_right", "exp_avg_sq_left", "exp_avg_sq_right"; the right ones of a dense matrix are
  /// empty.
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

}  // namespace lomu

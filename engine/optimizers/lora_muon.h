// LoRA-Muon: spectral steepest descent on the product of two factors, in float32 storage and float64 arithmetic.
// Source: arXiv 2606.12921; the r x r formulation, damping for zero starts and gauge balance are explained in
// docs/lora_muon.md. lora_muon_reference.h is the same step written from its definition.
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class LoraMuon final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit LoraMuon(const OptimizerOptions& options) : options_(options) {}

  /// "momentum_left", "momentum_right".
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;

  /// Besides check_pairs: refuses dense matrices; rank > min(m, n), where the metric of a factor has no inverse;
  /// factors that start at zero without damping; and pairs whose factors both start at zero.
  void check(std::span<const PairView> pairs) const override;

  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

/// What a metric P^T P or Q^T Q asks of a pair: rank <= min(m, n), and damping where a factor starts at zero, but not
/// both. UsageError naming the pair and `optimizer`.
void check_metric_exists(std::span<const PairView> pairs, const OptimizerOptions& options, std::string_view optimizer);

/// The spectral size eta of a step of W: ||s dP Q^T||_2 and ||s P dQ^T||_2 are at most eta / 2.
double spectral_step_size(const OptimizerOptions& options, double lr, std::int64_t m, std::int64_t n, std::int64_t r);

}  // namespace lomu

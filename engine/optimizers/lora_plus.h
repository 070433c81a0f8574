// LoRA+ (Hayou, Ghosh, Yu, arXiv 2402.12354): AdamW whose learning rate for the left factor, PEFT's lora_B, is lr_ratio
// times that of the right one. In a wide layer equal rates let one of the factors stand still; the paper's ratio is 16.
//   P by AdamW with lr_ratio x lr,   Q by AdamW with lr;   each decays with its own rate
// State: 2 floats a parameter. Zero starts: as AdamW. Not invariant under (P R, Q R^-T).
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class LoraPlus final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit LoraPlus(const OptimizerOptions& options) : options_(options) {}

  /// As AdamW.
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  /// Besides check_pairs: refuses dense matrices, which have no left and right.
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

}  // namespace lomu

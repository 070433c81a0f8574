#include "engine/optimizers/lora_plus.h"

#include "engine/optimizers/adam_entries.h"
#include "engine/optimizers/parallel_pairs.h"

namespace lomu {

std::span<const StateSlot> LoraPlus::state_slots(const ParameterShape& /*shape*/) const {
  return kAdamSlots;
}

void LoraPlus::check(std::span<const PairView> pairs) const {
  refuse_dense(pairs, "lora_plus");
  check_pairs(pairs, *this);
}

void LoraPlus::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  const double left_lr = options_.lr_ratio * info.lr;
  check_learning_rate(info, options_.weight_decay);
  check_learning_rate({info.step, left_lr, {}}, options_.weight_decay);
  const AdamRule left = adam_rule(options_, info, left_lr);
  const AdamRule right = adam_rule(options_, info, info.lr);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_entries(pairs[i], info, left, right); });
}

}  // namespace lomu

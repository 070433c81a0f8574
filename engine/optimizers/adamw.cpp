#include "engine/optimizers/adamw.h"

#include "engine/optimizers/adam_entries.h"
#include "engine/optimizers/parallel_pairs.h"

namespace lomu {

std::span<const StateSlot> AdamW::state_slots(const ParameterShape& /*shape*/) const {
  return kAdamSlots;
}

void AdamW::check(std::span<const PairView> pairs) const {
  check_pairs(pairs, *this);
}

void AdamW::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  const AdamRule rule = adam_rule(options_, info, info.lr);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_entries(pairs[i], info, rule, rule); });
}

}  // namespace lomu

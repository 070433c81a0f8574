#include "engine/optimizers/spectron.h"

#include <fmt/format.h>

#include <string>

#include "engine/optimizers/factor_signs.h"
#include "engine/optimizers/parallel_pairs.h"

namespace lomu {
namespace {

PairReport step_pair(const PairView& pair, const StepInfo& info, const OptimizerOptions& options) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const auto [left, right] = moving_factors(pair);
  const SmallMatrix left_gram = gram_of(left.shape, left.factor);
  const SmallMatrix right_gram = gram_of(right.shape, right.factor);
  require_finite_factor(left_gram, "the left factor", where);
  require_finite_factor(right_gram, "the right factor", where);
  const double reach = info.lr / (spectral_norm(left_gram) + spectral_norm(right_gram) + 1.0);
  return step_along_signs(pair, info, options, {reach, reach, left_gram.trace(), right_gram.trace()});
}

}  // namespace

std::span<const StateSlot> Spectron::state_slots(const ParameterShape& /*shape*/) const {
  return kMomentumSlots;
}

void Spectron::check(std::span<const PairView> pairs) const {
  refuse_dense(pairs, "spectron");
  check_pairs(pairs, *this);
}

void Spectron::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_pair(pairs[i], info, options_); });
}

}  // namespace lomu

#include "engine/optimizers/spectron.h"

#include <fmt/format.h>

#include <string>

#include "engine/optimizers/matrix_sign.h"
#include "engine/optimizers/momentum.h"
#include "engine/optimizers/parallel_pairs.h"

namespace lomu {
namespace {

PairReport step_pair(const PairView& pair, const StepInfo& info, const OptimizerOptions& options) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const auto state = [&](std::size_t slot) { return state_slot(pair, kMomentumSlots, slot).data(); };
  const MovingMatrix left{{false, pair.m, pair.r}, pair.left, pair.grad_left, state(0)};
  const MovingMatrix right{{true, pair.n, pair.r}, pair.right, pair.grad_right, state(1)};
  const MomentumRule rule = momentum_rule(options, info);
  const SmallMatrix left_factor = gram_of(left.shape, left.factor);
  const SmallMatrix right_factor = gram_of(right.shape, right.factor);
  const DirectionGram left_gram = direction_gram(left, rule);
  const DirectionGram right_gram = direction_gram(right, rule);
  require_finite_factor(left_factor, "the left factor", where);
  require_finite_factor(right_factor, "the right factor", where);
  require_finite_direction(left_gram.gram, "the left factor", where);
  require_finite_direction(right_gram.gram, "the right factor", where);

  const StepMatrix left_sign = sign_matrix(left_gram.gram, options.orthogonalizer, where);
  const StepMatrix right_sign = sign_matrix(right_gram.gram, options.orthogonalizer, where);
  const double keep = 1.0 - info.lr * options.weight_decay;
  const double reach = info.lr / (spectral_norm(left_factor) + spectral_norm(right_factor) + 1.0);
  apply_step(left, rule, left_sign.k, keep, -reach);
  apply_step(right, rule, right_sign.k, keep, -reach);

  const double left_step = reach * reach * left_sign.norm_squared;
  const double right_step = reach * reach * right_sign.norm_squared;
  PairReport report;
  report.grad_norm_squared = left_gram.grad_norm_squared + right_gram.grad_norm_squared;
  report.update_norm_squared = left_step + right_step;
  report.relative_step_left = relative_step(left_step, left_factor.trace());
  report.relative_step_right = relative_step(right_step, right_factor.trace());
  return report;
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

#include "engine/optimizers/factor_signs.h"

#include <fmt/format.h>

#include <string>

#include "engine/optimizers/matrix_sign.h"

namespace lomu {

MovingFactors moving_factors(const PairView& pair) {
  const auto state = [&](std::size_t slot) { return state_slot(pair, kMomentumSlots, slot).data(); };
  return {{{false, pair.m, pair.r}, pair.left, pair.grad_left, state(0)},
          {{true, pair.n, pair.r}, pair.right, pair.grad_right, state(1)}};
}

PairReport step_along_signs(const PairView& pair, const StepInfo& info, const OptimizerOptions& options,
                            const SignReach& reach) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const auto [left, right] = moving_factors(pair);
  const MomentumRule rule = momentum_rule(options, info);
  const DirectionGram left_gram = direction_gram(left, rule);
  const DirectionGram right_gram = direction_gram(right, rule);
  require_finite_direction(left_gram.gram, "the left factor", where);
  require_finite_direction(right_gram.gram, "the right factor", where);

  const StepMatrix left_sign = sign_matrix(left_gram.gram, options.orthogonalizer, where);
  const StepMatrix right_sign = sign_matrix(right_gram.gram, options.orthogonalizer, where);
  const double keep = 1.0 - info.lr * options.weight_decay;
  apply_step(left, rule, left_sign.k, keep, -reach.left);
  apply_step(right, rule, right_sign.k, keep, -reach.right);

  const double left_step = reach.left * reach.left * left_sign.norm_squared;
  const double right_step = reach.right * reach.right * right_sign.norm_squared;
  PairReport report;
  report.grad_norm_squared = left_gram.grad_norm_squared + right_gram.grad_norm_squared;
  report.update_norm_squared = left_step + right_step;
  report.relative_step_left = relative_step(left_step, reach.left_norm_squared);
  report.relative_step_right = relative_step(right_step, reach.right_norm_squared);
  if (info.telemetry) {
    describe_momentum(MomentumSide::kLeft, left_sign.spectrum, report.figures);
    describe_momentum(MomentumSide::kRight, right_sign.spectrum, report.figures);
  }
  return report;
}

}  // namespace lomu

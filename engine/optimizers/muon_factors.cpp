#include "engine/optimizers/muon_factors.h"

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
  const double left_norm_squared = finite_norm_squared(left, "the left factor", where);
  const double right_norm_squared = finite_norm_squared(right, "the right factor", where);
  const DirectionGram left_gram = direction_gram(left, rule);
  const DirectionGram right_gram = direction_gram(right, rule);
  require_finite_direction(left_gram.gram, "the left factor", where);
  require_finite_direction(right_gram.gram, "the right factor", where);

  const StepMatrix left_sign = sign_matrix(left_gram.gram, options.orthogonalizer, where);
  const StepMatrix right_sign = sign_matrix(right_gram.gram, options.orthogonalizer, where);
  const double keep = 1.0 - info.lr * options.weight_decay;
  const double left_reach = info.lr * muon_scale(options.scaling, pair.m, pair.r);
  const double right_reach = info.lr * muon_scale(options.scaling, pair.r, pair.n);
  apply_step(left, rule, left_sign.k, keep, -left_reach);
  apply_step(right, rule, right_sign.k, keep, -right_reach);

  const double left_step = left_reach * left_reach * left_sign.norm_squared;
  const double right_step = right_reach * right_reach * right_sign.norm_squared;
  PairReport report;
  report.grad_norm_squared = left_gram.grad_norm_squared + right_gram.grad_norm_squared;
  report.update_norm_squared = left_step + right_step;
  report.relative_step_left = relative_step(left_step, left_norm_squared);
  report.relative_step_right = relative_step(right_step, right_norm_squared);
  if (info.telemetry) {
    describe_momentum(MomentumSide::kLeft, left_sign.spectrum, report.figures);
    describe_momentum(MomentumSide::kRight, right_sign.spectrum, report.figures);
  }
  return report;
}

}  // namespace

std::span<const StateSlot> MuonFactors::state_slots(const ParameterShape& /*shape*/) const {
  return kMomentumSlots;
}

void MuonFactors::check(std::span<const PairView> pairs) const {
  refuse_dense(pairs, "muon_factors");
  check_pairs(pairs, *this);
}

void MuonFactors::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_pair(pairs[i], info, options_); });
}

}  // namespace lomu

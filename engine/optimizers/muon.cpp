#include "engine/optimizers/muon.h"

#include <fmt/format.h>

#include <string>

#include "engine/optimizers/matrix_sign.h"
#include "engine/optimizers/momentum.h"
#include "engine/optimizers/parallel_pairs.h"
#include "kernels/error.h"

namespace lomu {
namespace {

/// The long side is the length, so that Grams are of the short one.
FactorShape shape_of(const PairView& matrix) {
  if (matrix.m >= matrix.n) return {false, matrix.m, matrix.n};
  return {true, matrix.n, matrix.m};
}

PairReport step_matrix(const PairView& matrix, const StepInfo& info, const OptimizerOptions& options) {
  const std::string where = fmt::format("{}, step {}", matrix.name, info.step);
  const MovingMatrix moving{shape_of(matrix), matrix.left, matrix.grad_left,
                            state_slot(matrix, kMomentumSlots, 0).data()};
  const MomentumRule rule = momentum_rule(options, info);
  const double norm_squared = finite_norm_squared(moving, "the matrix", where);
  const DirectionGram gram = direction_gram(moving, rule);
  require_finite_direction(gram.gram, "the matrix", where);
  const StepMatrix sign = sign_matrix(gram.gram, options.orthogonalizer, where);
  const double reach = info.lr * muon_scale(options.scaling, matrix.m, matrix.n);
  apply_step(moving, rule, sign.k, 1.0 - info.lr * options.weight_decay, -reach);

  PairReport report;
  report.grad_norm_squared = gram.grad_norm_squared;
  report.update_norm_squared = reach * reach * sign.norm_squared;
  report.relative_step_left = relative_step(report.update_norm_squared, norm_squared);
  if (info.telemetry) describe_momentum(MomentumSide::kLeft, sign.spectrum, report.figures);
  return report;
}

}  // namespace

std::span<const StateSlot> Muon::state_slots(const ParameterShape& /*shape*/) const {
  return kMomentumSlots;
}

void Muon::check(std::span<const PairView> pairs) const {
  for (const PairView& pair : pairs) {
    const std::string where(pair.name);
    if (!pair.dense()) {
      throw UsageError("muon trains dense matrices, and this is a pair of factors", where,
                       "use muon_factors or lora_muon for adapters");
    }
    if (pair.m == 1) {
      throw UsageError("muon trains matrices, and this is a vector", where,
                       "send it to adamw with optimizer.groups, as {match: [norm, bias], name: adamw}");
    }
  }
  check_pairs(pairs, *this);
}

void Muon::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_matrix(pairs[i], info, options_); });
}

}  // namespace lomu

#include "engine/optimizers/muon_factors.h"

#include <fmt/format.h>

#include <string>

#include "engine/optimizers/factor_signs.h"
#include "engine/optimizers/matrix_sign.h"
#include "engine/optimizers/parallel_pairs.h"

namespace lomu {
namespace {

PairReport step_pair(const PairView& pair, const StepInfo& info, const OptimizerOptions& options) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const auto [left, right] = moving_factors(pair);
  return step_along_signs(pair, info, options,
                          {.left = info.lr * muon_scale(options.scaling, pair.m, pair.r),
                           .right = info.lr * muon_scale(options.scaling, pair.r, pair.n),
                           .left_norm_squared = finite_norm_squared(left, "the left factor", where),
                           .right_norm_squared = finite_norm_squared(right, "the right factor", where)});
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

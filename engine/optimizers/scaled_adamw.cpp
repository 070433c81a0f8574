#include "engine/optimizers/scaled_adamw.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "engine/optimizers/adam_entries.h"
#include "engine/optimizers/parallel_pairs.h"
#include "engine/optimizers/small_matrix.h"
#include "engine/optimizers/tall_products.h"

namespace lomu {
namespace {

struct Half {
  FactorShape shape;
  float* factor = nullptr;
  const float* grad = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
};

/// Steps a factor by AdamW on grad times `precondition`; returns the squared norm of the change without decay.
double step_half(const Half& half, const SmallMatrix& precondition, const AdamRule& rule) {
  std::vector<double> squares(static_cast<std::size_t>(half.shape.chunks()), 0.0);
  const auto load = [&half](const Run& run, double* panel) {
    const float* g = half.grad + run.factor;
    double* to = panel + run.panel;
#pragma omp simd
    for (std::int64_t i = 0; i < run.count; ++i) to[i] = g[i];
  };
  const auto store = [&](const Run& run, const double* product) {
    const double* h = product + run.panel;
    double sum = 0.0;
    for (std::int64_t i = 0; i < run.count; ++i) {
      const std::int64_t at = run.factor + i;
      const double change = rule.change(h[i], half.exp_avg[at], half.exp_avg_sq[at]);
      half.factor[at] = static_cast<float>(rule.keep * half.factor[at] + change);
      sum += change * change;
    }
    // A run lies in one chunk, and a chunk's runs come one after the other.
    const std::int64_t row = half.shape.wide ? run.factor % half.shape.length : run.factor / half.shape.rank;
    squares[static_cast<std::size_t>(row / half.shape.chunk_length())] += sum;
  };
  multiply(half.shape, precondition, load, store);
  double total = 0.0;
  for (const double s : squares) total += s;
  return total;
}

PairReport step_pair(const PairView& pair, const StepInfo& info, const AdamRule& rule, double delta) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const auto state = [&](std::size_t slot) { return state_slot(pair, kAdamSlots, slot).data(); };
  const Half left{{false, pair.m, pair.r}, pair.left, pair.grad_left, state(0), state(2)};
  const Half right{{true, pair.n, pair.r}, pair.right, pair.grad_right, state(1), state(3)};
  const NormsBefore norms = finite_norms(pair, info);
  const SmallMatrix for_right = shifted_inverse(gram_of(left.shape, left.factor), delta, where);
  const SmallMatrix for_left = shifted_inverse(gram_of(right.shape, right.factor), delta, where);

  const double left_step = step_half(left, for_left, rule);
  const double right_step = step_half(right, for_right, rule);
  PairReport report;
  report.grad_norm_squared = norms.grad;
  report.update_norm_squared = left_step + right_step;
  report.relative_step_left = relative_step(left_step, norms.left);
  report.relative_step_right = relative_step(right_step, norms.right);
  return report;
}

}  // namespace

std::span<const StateSlot> ScaledAdamW::state_slots(const ParameterShape& /*shape*/) const {
  return kAdamSlots;
}

void ScaledAdamW::check(std::span<const PairView> pairs) const {
  refuse_dense(pairs, "scaled_adamw");
  check_pairs(pairs, *this);
}

void ScaledAdamW::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  const AdamRule rule = adam_rule(options_, info, info.lr);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(),
                [&](std::size_t i) { report.pairs[i] = step_pair(pairs[i], info, rule, options_.delta); });
}

}  // namespace lomu

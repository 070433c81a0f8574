#include "engine/optimizers/adamw.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "engine/optimizers/fixed_order_sum.h"
#include "engine/optimizers/parallel_pairs.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr std::array<StateSlot, 4> kSlots{{{"exp_avg_left", Extent::kLeft},
                                           {"exp_avg_right", Extent::kRight},
                                           {"exp_avg_sq_left", Extent::kLeft},
                                           {"exp_avg_sq_right", Extent::kRight}}};

/// The numbers of a step that are the same for every entry.
struct Rule {
  double lr, keep, clip;
  double beta1, beta2, eps;
  double correction1, correction2_root;  ///< 1 - beta1^t, sqrt(1 - beta2^t)
};

struct Half {
  std::span<float> factor;
  const float* grad;
  float* exp_avg;
  float* exp_avg_sq;
};

/// Steps one factor in blocks, whose changes are kept in double for the report. Returns the squared norm of the change.
double step_half(const Half& half, const Rule& rule) {
  constexpr std::size_t kBlock = 1024;
  double step_norm_squared = 0.0;
  std::array<double, kBlock> change;
  for (std::size_t at = 0; at < half.factor.size(); at += kBlock) {
    const std::size_t count = std::min(kBlock, half.factor.size() - at);
    float* x = half.factor.data() + at;
    const float* grad = half.grad + at;
    float* first = half.exp_avg + at;
    float* second = half.exp_avg_sq + at;
#pragma omp simd
    for (std::size_t i = 0; i < count; ++i) {
      const double g = rule.clip * grad[i];
      const double avg = rule.beta1 * first[i] + (1.0 - rule.beta1) * g;
      const double avg_sq = rule.beta2 * second[i] + (1.0 - rule.beta2) * g * g;
      first[i] = static_cast<float>(avg);
      second[i] = static_cast<float>(avg_sq);
      change[i] = -rule.lr * (avg / rule.correction1) / (std::sqrt(avg_sq) / rule.correction2_root + rule.eps);
      x[i] = static_cast<float>(rule.keep * x[i] + change[i]);
    }
    step_norm_squared += sum_of_squares(std::span<const double>(change.data(), count));
  }
  return step_norm_squared;
}

void require_finite(double norm_squared, std::string_view what, const PairView& pair, const StepInfo& info) {
  if (std::isfinite(norm_squared)) return;
  throw NumericError(fmt::format("{} is not finite", what), fmt::format("{}, step {}", pair.name, info.step),
                     "lower the learning rate or look at the batch of this step");
}

double relative_step(double step_norm_squared, double factor_norm_squared) {
  return factor_norm_squared > 0.0 ? std::sqrt(step_norm_squared / factor_norm_squared) : 0.0;
}

PairReport step_pair(const PairView& pair, const StepInfo& info, const Rule& rule) {
  const auto state = [&](std::size_t slot) { return state_slot(pair, kSlots, slot).data(); };
  const Half left{{pair.left, pair.left_size()}, pair.grad_left, state(0), state(2)};
  const Half right{{pair.right, pair.right_size()}, pair.grad_right, state(1), state(3)};

  PairReport report;
  report.grad_norm_squared =
      sum_of_squares({left.grad, left.factor.size()}) + sum_of_squares({right.grad, right.factor.size()});
  const double left_norm_squared = sum_of_squares(left.factor);
  const double right_norm_squared = sum_of_squares(right.factor);
  require_finite(report.grad_norm_squared, "a gradient", pair, info);
  require_finite(left_norm_squared + right_norm_squared, "a factor", pair, info);

  const double left_step = step_half(left, rule);
  const double right_step = step_half(right, rule);
  report.update_norm_squared = left_step + right_step;
  report.relative_step_left = relative_step(left_step, left_norm_squared);
  report.relative_step_right = relative_step(right_step, right_norm_squared);
  return report;
}

}  // namespace

std::span<const StateSlot> AdamW::state_slots(const ParameterShape& /*shape*/) const {
  return kSlots;
}

void AdamW::check(std::span<const PairView> pairs) const {
  check_pairs(pairs, *this);
}

void AdamW::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  if (info.step < 1) throw UsageError(fmt::format("step {} is before the first", info.step), "adamw");
  const auto t = static_cast<double>(info.step);
  const Rule rule{info.lr,
                  1.0 - info.lr * options_.weight_decay,
                  clip_factor(options_.max_grad_norm, info),
                  options_.beta1,
                  options_.beta2,
                  options_.eps,
                  1.0 - std::pow(options_.beta1, t),
                  std::sqrt(1.0 - std::pow(options_.beta2, t))};
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_pair(pairs[i], info, rule); });
}

}  // namespace lomu

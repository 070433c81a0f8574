#include "engine/optimizers/adam_entries.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "engine/optimizers/fixed_order_sum.h"
#include "kernels/error.h"

namespace lomu {
namespace {

void require_finite(double norm_squared, std::string_view what, const PairView& pair, const StepInfo& info) {
  if (std::isfinite(norm_squared)) return;
  throw NumericError(fmt::format("{} is not finite", what), fmt::format("{}, step {}", pair.name, info.step),
                     "lower the learning rate or look at the batch of this step");
}

/// An array with its gradient and moments.
struct AdamArray {
  std::span<float> entries;
  const float* grad;
  float* exp_avg;
  float* exp_avg_sq;
};

/// Steps an array in blocks, whose changes are kept in double for the sum: the squared norm of the change, without
/// decay.
double step_array(const AdamArray& array, const AdamRule& rule) {
  constexpr std::size_t kBlock = 1024;
  double step_norm_squared = 0.0;
  std::array<double, kBlock> change;
  for (std::size_t at = 0; at < array.entries.size(); at += kBlock) {
    const std::size_t count = std::min(kBlock, array.entries.size() - at);
    float* x = array.entries.data() + at;
    const float* grad = array.grad + at;
    float* first = array.exp_avg + at;
    float* second = array.exp_avg_sq + at;
#pragma omp simd
    for (std::size_t i = 0; i < count; ++i) {
      change[i] = rule.change(grad[i], first[i], second[i]);
      x[i] = static_cast<float>(rule.keep * x[i] + change[i]);
    }
    step_norm_squared += sum_of_squares(std::span<const double>(change.data(), count));
  }
  return step_norm_squared;
}

}  // namespace

AdamRule adam_rule(const OptimizerOptions& options, const StepInfo& info, double lr) {
  if (info.step < 1) throw UsageError(fmt::format("step {} is before the first", info.step), "optimizer");
  const auto t = static_cast<double>(info.step);
  return {lr,
          1.0 - lr * options.weight_decay,
          clip_factor(options.max_grad_norm, info),
          options.beta1,
          options.beta2,
          options.eps,
          1.0 - std::pow(options.beta1, t),
          std::sqrt(1.0 - std::pow(options.beta2, t))};
}

NormsBefore finite_norms(const PairView& pair, const StepInfo& info) {
  NormsBefore norms;
  norms.grad =
      sum_of_squares({pair.grad_left, pair.left_size()}) + sum_of_squares({pair.grad_right, pair.right_size()});
  norms.left = sum_of_squares(std::span<const float>(pair.left, pair.left_size()));
  norms.right = sum_of_squares(std::span<const float>(pair.right, pair.right_size()));
  require_finite(norms.grad, "a gradient", pair, info);
  require_finite(norms.left + norms.right, "a factor", pair, info);
  return norms;
}

PairReport step_entries(const PairView& pair, const StepInfo& info, const AdamRule& left, const AdamRule& right) {
  const auto state = [&](std::size_t slot) { return state_slot(pair, kAdamSlots, slot).data(); };
  const NormsBefore norms = finite_norms(pair, info);
  const double left_step = step_array({{pair.left, pair.left_size()}, pair.grad_left, state(0), state(2)}, left);
  const double right_step = step_array({{pair.right, pair.right_size()}, pair.grad_right, state(1), state(3)}, right);
  PairReport report;
  report.grad_norm_squared = norms.grad;
  report.update_norm_squared = left_step + right_step;
  report.relative_step_left = relative_step(left_step, norms.left);
  report.relative_step_right = relative_step(right_step, norms.right);
  return report;
}

}  // namespace lomu

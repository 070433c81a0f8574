#include "engine/optimizers/momentum.h"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>

#include "engine/optimizers/fixed_order_sum.h"
#include "kernels/error.h"

namespace lomu {

MomentumRule momentum_rule(const OptimizerOptions& options, const StepInfo& info) {
  return {options.momentum, (1.0 - options.momentum) * clip_factor(options.max_grad_norm, info), options.nesterov};
}

DirectionGram direction_gram(const MovingMatrix& matrix, const MomentumRule& rule) {
  GramResult direction = gram_from_runs(matrix.shape, [&matrix, rule](const Run& run, double* panel) {
    const float* m = matrix.momentum + run.factor;
    const float* g = matrix.grad + run.factor;
    double* to = panel + run.panel;
#pragma omp simd
    for (std::int64_t i = 0; i < run.count; ++i) to[i] = rule.direction(rule.momentum(m[i], g[i]), g[i]);
    return sum_of_squares({g, static_cast<std::size_t>(run.count)});
  });
  return {std::move(direction.gram), direction.side_sum};
}

SmallMatrix factor_direction_gram(const MovingMatrix& matrix, const MomentumRule& rule) {
  const std::int64_t r = matrix.shape.rank;
  const auto direction = [&](std::int64_t i) {
    return rule.direction(rule.momentum(matrix.momentum[i], matrix.grad[i]), matrix.grad[i]);
  };
  // One off-diagonal block of the Gram of [X, D], a matrix twice as wide as the factor.
  const FactorShape both{matrix.shape.wide, matrix.shape.length, 2 * r};
  const auto load = [&](const Run& run, double* panel) {
    double* to = panel + run.panel;
    if (both.wide) {
      const std::int64_t size = r * both.length;
      for (std::int64_t i = 0; i < run.count; ++i) {
        const std::int64_t at = run.factor + i;
        to[i] = at < size ? matrix.factor[at] : direction(at - size);
      }
      return 0.0;
    }
    for (std::int64_t i = 0; i < run.count; i += 2 * r) {
      const std::int64_t row = (run.factor + i) / 2;
      for (std::int64_t j = 0; j < r; ++j) {
        to[i + j] = matrix.factor[row + j];
        to[i + r + j] = direction(row + j);
      }
    }
    return 0.0;
  };
  const SmallMatrix gram = gram_from_runs(both, load).gram;
  SmallMatrix cross(r);
  for (std::int64_t i = 0; i < r; ++i) {
    for (std::int64_t j = 0; j < r; ++j) cross(i, j) = gram(i, r + j);
  }
  return cross;
}

void apply_step(const MovingMatrix& matrix, const MomentumRule& rule, const SmallMatrix& k, double keep, double move) {
  const auto load = [&matrix, rule](const Run& run, double* panel) {
    float* m = matrix.momentum + run.factor;
    const float* g = matrix.grad + run.factor;
    double* to = panel + run.panel;
#pragma omp simd
    for (std::int64_t i = 0; i < run.count; ++i) {
      const double updated = rule.momentum(m[i], g[i]);
      to[i] = rule.direction(updated, g[i]);
      m[i] = static_cast<float>(updated);
    }
  };
  const auto store = [&matrix, keep, move](const Run& run, const double* product) {
    float* x = matrix.factor + run.factor;
    const double* from = product + run.panel;
#pragma omp simd
    for (std::int64_t i = 0; i < run.count; ++i) x[i] = static_cast<float>(keep * x[i] + move * from[i]);
  };
  multiply(matrix.shape, k, load, store);
}

namespace {

void require_finite(double norm_squared, std::string_view what, const std::string& where) {
  if (std::isfinite(norm_squared)) return;
  throw NumericError(fmt::format("{} is not finite", what), where, "lower the learning rate");
}

}  // namespace

void require_finite_factor(const SmallMatrix& gram, std::string_view what, const std::string& where) {
  require_finite(gram.trace(), what, where);
}

double finite_norm_squared(const MovingMatrix& matrix, std::string_view what, const std::string& where) {
  const auto size = static_cast<std::size_t>(matrix.shape.length * matrix.shape.rank);
  const double norm_squared = sum_of_squares(std::span<const float>(matrix.factor, size));
  require_finite(norm_squared, what, where);
  return norm_squared;
}

void require_finite_direction(const SmallMatrix& gram, std::string_view what, const std::string& where) {
  if (std::isfinite(gram.trace())) return;
  throw NumericError(fmt::format("the gradient or momentum of {} is not finite", what), where,
                     "lower the learning rate or look at the batch of this step");
}

}  // namespace lomu

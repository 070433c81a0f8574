// The r x r form of the paper's recursions against the recursions as the paper writes them, on the long matrices.
#include "engine/optimizers/newton_schulz.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

Dense to_dense(const SmallMatrix& a) {
  return Dense(a.values().data(), a.size(), a.size());
}

SmallMatrix to_small(const Dense& a) {
  SmallMatrix out(a.rows());
  std::copy(a.values().begin(), a.values().end(), out.values().begin());
  return out;
}

/// msign on the whole matrix: X <- a X + b (X X^T) X + c (X X^T)^2 X.
Dense sign_as_written(const Dense& y) {
  constexpr std::array<std::array<double, 3>, 8> kSteps{{{7.2086, -15.5131, 9.0178},
                                                         {3.9623, -2.5813, 0.4542},
                                                         {3.9466, -2.5765, 0.4544},
                                                         {3.8991, -2.5671, 0.4566},
                                                         {3.7186, -2.5308, 0.4653},
                                                         {3.1390, -2.3073, 0.4733},
                                                         {2.1715, -1.5246, 0.3885},
                                                         {1.8648, -1.2224, 0.3577}}};
  Dense x = (1.0 / (y.norm() + 1e-20)) * y;
  for (const auto& [a, b, c] : kSteps) {
    const Dense xx = x * x.transpose();
    x = a * x + b * xx * x + c * xx * xx * x;
  }
  return x;
}

TEST(NewtonSchulz, SignOnGramsIsTheSignOnTheMatrix) {
  std::mt19937_64 random(41);
  for (const double condition : {1.0, 30.0, 1000.0}) {
    const Dense y = 0.003 * random_with_condition(random, 50, 12, condition);
    const Dense sign = y * to_dense(newton_schulz_sign(to_small(y.transpose() * y)));
    EXPECT_LT((sign - sign_as_written(y)).norm(), 1e-9 * std::sqrt(12.0)) << condition;
  }
}

TEST(NewtonSchulz, SignBringsSingularValuesNearOne) {
  std::mt19937_64 random(42);
  const Dense y = random_with_condition(random, 50, 12, 100.0);
  const Dense sign = y * to_dense(newton_schulz_sign(to_small(y.transpose() * y)));
  const std::vector<double> sigma = singular_values(sign);
  EXPECT_LT(sigma[0], 1.02);
  EXPECT_GT(sigma[11], 0.98);
}

TEST(NewtonSchulz, InverseRootIsNearForWellConditionedMetrics) {
  std::mt19937_64 random(43);
  const Dense b = random_with_condition(random, 40, 8, 3.0);
  const Dense c = 0.02 * (b.transpose() * b);
  const Dense x = to_dense(newton_schulz_inverse_root(to_small(c)));
  EXPECT_LT((x * c * x - identity(8)).norm(), 1e-2);
}

TEST(NewtonSchulz, StepIsNearTheExactOne) {
  std::mt19937_64 random(44);
  OwnedPair exact = random_pair(random, 64, 48, 8);
  OwnedPair polynomial = exact;
  const Dense before = left_of(exact);
  OptimizerOptions options;
  step_once(*make_optimizer(options), exact, {1, 0.02, {}});
  options.orthogonalizer = Orthogonalizer::kNewtonSchulz;
  const StepReport report = step_once(*make_optimizer(options), polynomial, {1, 0.02, {}});
  const Dense exact_step = left_of(exact) - before;
  const Dense step = left_of(polynomial) - before;
  EXPECT_LT((step - exact_step).norm(), 0.02 * exact_step.norm());
  EXPECT_GT((step - exact_step).norm(), 1e-6 * exact_step.norm());
  EXPECT_NEAR(report.pairs[0].relative_step_left, step.norm() / before.norm(), 1e-6);
}

TEST(NewtonSchulz, WorksWithDampingFromAZeroStart) {
  std::mt19937_64 random(45);
  OwnedPair pair(24, 20, 4);
  pair.left_started_zero = true;
  set_right(pair, random_dense(random, 20, 4, 0.2));
  OptimizerOptions options;
  options.orthogonalizer = Orthogonalizer::kNewtonSchulz;
  const auto optimizer = make_optimizer(options);
  pair.give_state(*optimizer);
  for (std::int64_t step = 1; step <= 4; ++step) {
    const Dense g = random_dense(random, 24, 20);
    set_gradients(pair, g * right_of(pair), g.transpose() * left_of(pair));
    const StepReport report = step_once(*optimizer, pair, {step, 0.02, {}});
    EXPECT_LT(report.pairs[0].relative_step_right, 0.11);
  }
  EXPECT_TRUE(std::isfinite(left_of(pair).norm()));
}

TEST(NewtonSchulz, ZeroMomentumStaysZero) {
  SmallMatrix metric(3);
  for (std::int64_t i = 0; i < 3; ++i) metric(i, i) = 1.0;
  const StepMatrix step = newton_schulz_step_matrix(SmallMatrix(3), metric);
  EXPECT_EQ(step.norm_squared, 0.0);
  for (const double x : step.k.values()) EXPECT_EQ(x, 0.0);
}

}  // namespace
}  // namespace lomu::testing

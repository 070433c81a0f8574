// Training from P = 0, the usual start of LoRA: what damping promises, over a run on a toy problem.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/optimizers/optimizer.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

/// f(W) = ||s P Q^T - target||_F^2 / 2; sets the gradients of both factors and returns f.
double set_toy_gradients(OwnedPair& pair, const Dense& target) {
  const Dense p = left_of(pair);
  const Dense q = right_of(pair);
  const Dense g = pair.scale * p * q.transpose() - target;
  set_gradients(pair, pair.scale * g * q, pair.scale * g.transpose() * p);
  return 0.5 * g.norm() * g.norm();
}

class ZeroStart : public ::testing::TestWithParam<bool> {};

TEST_P(ZeroStart, RelativeAndCrossStepsAreBoundedAndTheToyIsLearned) {
  const bool left_zero = GetParam();
  for (const double eta : {0.02, 0.5}) {
    std::mt19937_64 random(31);
    OwnedPair pair(40, 32, 4);
    pair.scale = 2.0;
    (left_zero ? pair.left_started_zero : pair.right_started_zero) = true;
    if (left_zero) {
      set_right(pair, random_dense(random, 32, 4, 0.2));
    } else {
      set_left(pair, random_dense(random, 40, 4, 0.2));
    }
    // Eight directions of sizes about one, more than a rank of four can hold, and well within the reach of the steps.
    const Dense target = random_dense(random, 40, 8, 0.2) * random_dense(random, 8, 32, 0.2);

    OptimizerOptions options;
    options.lr = eta;
    const double rho = *options.damping;
    const auto optimizer = make_optimizer(options);
    pair.give_state(*optimizer);
    const double first_loss = set_toy_gradients(pair, target);
    double loss = first_loss;
    for (std::int64_t step = 1; step <= 250; ++step) {
      const Dense p = left_of(pair);
      const Dense q = right_of(pair);
      const double lr = eta * (1.0 - static_cast<double>(step - 1) / 250.0);
      const StepReport report = step_once(*optimizer, pair, {step, lr, {}});
      // The factor whose partner started at zero takes no relative step above rho; the other is free.
      const double bounded = left_zero ? report.pairs[0].relative_step_right : report.pairs[0].relative_step_left;
      ASSERT_LE(bounded, rho * (1 + 1e-6)) << step;
      if (step % 100 != 0) {  // a gauge balance after a step would count as one here
        const Dense cross = (left_of(pair) - p) * (right_of(pair) - q).transpose();
        ASSERT_LE(pair.scale * spectral_norm_of(cross), rho * lr / 2 * (1 + 1e-4) + 1e-6) << step;
      }
      loss = set_toy_gradients(pair, target);
      ASSERT_TRUE(std::isfinite(loss));
    }
    const std::vector<double> sigma = singular_values(target);
    double best = 0.0;  // what no matrix of rank four can reach
    for (std::size_t i = 4; i < sigma.size(); ++i) best += 0.5 * sigma[i] * sigma[i];
    EXPECT_LT(loss - best, 0.05 * (first_loss - best)) << eta;
  }
}

INSTANTIATE_TEST_SUITE_P(Sides, ZeroStart, ::testing::Bool(),
                         [](const auto& which) { return which.param ? "Left" : "Right"; });

TEST(ZeroStart, StepsFollowTheReference) {
  for (const bool left_zero : {true, false}) {
    std::mt19937_64 random(32);
    OwnedPair pair(24, 20, 4);
    (left_zero ? pair.left_started_zero : pair.right_started_zero) = true;
    left_zero ? set_right(pair, random_dense(random, 20, 4, 0.2)) : set_left(pair, random_dense(random, 24, 4, 0.2));
    const Dense target = random_dense(random, 24, 20, 0.2);
    OptimizerOptions options;
    options.lr = 0.05;
    const auto optimizer = make_optimizer(options);
    pair.give_state(*optimizer);
    for (std::int64_t step = 1; step <= 5; ++step) {
      set_toy_gradients(pair, target);
      const ReferenceProblem problem = problem_of(pair, options);
      const ReferenceState expected = reference_step(problem);
      step_once(*optimizer, pair, {step, options.lr, {}});
      EXPECT_LT(
          step_error(left_of(pair), Dense((expected.left).data(), 24, 4), Dense((problem.before.left).data(), 24, 4)),
          1e-6);
      EXPECT_LT(step_error(right_of(pair), Dense((expected.right).data(), 20, 4),
                           Dense((problem.before.right).data(), 20, 4)),
                1e-6);
    }
  }
}

TEST(ZeroStart, WithoutDampingIsRefusedWithTheReason) {
  OwnedPair pair(8, 6, 2);
  pair.left_started_zero = true;
  OptimizerOptions options;
  options.damping.reset();
  const auto optimizer = make_optimizer(options);
  pair.give_state(*optimizer);
  const PairView view = pair.view();
  try {
    optimizer->check({&view, 1});
    FAIL() << "a zero start without damping was accepted";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("left factor starts at zero"));
    EXPECT_THAT(error.hint(), ::testing::HasSubstr("optimizer.damping"));
    EXPECT_EQ(error.where(), pair.name);
  }
}

TEST(ZeroStart, OfBothFactorsIsRefused) {
  OwnedPair pair(8, 6, 2);
  pair.left_started_zero = pair.right_started_zero = true;
  const auto optimizer = make_optimizer({});
  pair.give_state(*optimizer);
  const PairView view = pair.view();
  EXPECT_THROW(optimizer->check({&view, 1}), UsageError);
}

TEST(ZeroStart, AFactorThatIsZeroWithoutHavingStartedSoIsNamed) {
  std::mt19937_64 random(33);
  OwnedPair pair = random_pair(random, 8, 6, 2);
  std::fill(pair.left.begin(), pair.left.end(), 0.0f);
  EXPECT_THROW(step_once(*make_optimizer({}), pair, {1, 0.02, {}}), NumericError);
}

}  // namespace
}  // namespace lomu::testing

// What every optimizer does at the edges: from a zero factor, without a gradient, with a rank above the sides of the
// matrix, with numbers that are not finite.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/optimizers/optimizer.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/all_optimizers.h"

namespace lomu::testing {
namespace {

bool finite(const OwnedPair& pair) {
  for (const auto* values : {&pair.left, &pair.right, &pair.state}) {
    for (const float x : *values) {
      if (!std::isfinite(x)) return false;
    }
  }
  return true;
}

bool has_metric(const NamedOptimizer& which) {
  return which.kind == OptimizerKind::kLoraMuon || which.kind == OptimizerKind::kLoraRite ||
         which.kind == OptimizerKind::kLoraRiteCore;
}

class Edges : public ::testing::TestWithParam<NamedOptimizer> {
 protected:
  OptimizerOptions options_ = GetParam().options();
  std::mt19937_64 random_{161};
};

TEST_P(Edges, AToyIsLearnedFromAZeroFactor) {
  if (GetParam().dense_alone) return;  // a matrix has no factors
  options_.lr = GetParam().kind == OptimizerKind::kLoraPlus ? 0.003 : 0.02;
  options_.max_grad_norm = options_.weight_decay = 0.0;
  const auto optimizer = make_optimizer(options_);
  OwnedPair pair(20, 16, 3);
  pair.left_started_zero = true;
  set_right(pair, random_dense(random_, 16, 3, 0.25));
  pair.give_state(*optimizer);
  const Dense target = random_dense(random_, 20, 3, 0.3) * random_dense(random_, 3, 16, 0.3);
  double loss = 0.0;
  for (std::int64_t t = 1; t <= 150; ++t) {
    const Dense p = left_of(pair), q = right_of(pair);
    const Dense g = p * q.transpose() - target;
    loss = g.norm() / target.norm();
    set_gradients(pair, g * q, g.transpose() * p);
    step_once(*optimizer, pair, {t, options_.lr, {}});
    ASSERT_TRUE(finite(pair)) << t;
  }
  EXPECT_LT(loss, 0.5);
}

TEST_P(Edges, WithoutAGradientParametersOnlyDecay) {
  OwnedPair pair = GetParam().parameter(random_, 14, 12, 5);
  std::fill(pair.grad_left.begin(), pair.grad_left.end(), 0.0f);
  std::fill(pair.grad_right.begin(), pair.grad_right.end(), 0.0f);
  const auto optimizer = make_optimizer(options_);
  pair.give_state(*optimizer);
  const std::vector<float> left = pair.left;
  step_once(*optimizer, pair, {1, options_.lr, 1.0});
  const float kept = pair.left[0] / left[0];
  EXPECT_LT(kept, 1.0f);
  for (std::size_t i = 0; i < left.size(); ++i) EXPECT_NEAR(pair.left[i], kept * left[i], 1e-6 * std::abs(left[i]));
}

TEST_P(Edges, ARankAboveTheSidesIsSteppedOrNamed) {
  if (GetParam().dense_alone) return;  // a matrix has no rank
  OwnedPair pair = random_pair(random_, 5, 7, 9);
  const auto optimizer = make_optimizer(options_);
  pair.give_state(*optimizer);
  if (has_metric(GetParam())) {
    EXPECT_THROW(step_once(*optimizer, pair, {1, options_.lr, 1.0}), UsageError);
    return;
  }
  const std::vector<float> left = pair.left;
  step_once(*optimizer, pair, {1, options_.lr, 1.0});
  EXPECT_TRUE(finite(pair));
  EXPECT_NE(pair.left, left);
}

TEST_P(Edges, AMetricNeedsDampingFromAZeroFactor) {
  if (!has_metric(GetParam())) return;
  options_.damping.reset();
  const auto optimizer = make_optimizer(options_);
  OwnedPair pair = random_pair(random_, 8, 6, 2);
  pair.give_state(*optimizer);
  pair.left_started_zero = true;
  EXPECT_THROW(step_once(*optimizer, pair, {1, options_.lr, 1.0}), UsageError);
}

TEST_P(Edges, NumbersThatAreNotFiniteAreNamedAndNothingMoves) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const bool in_gradient : {true, false}) {
      OwnedPair pair = GetParam().parameter(random_, 14, 12, 5);
      const auto optimizer = make_optimizer(options_);
      pair.give_state(*optimizer);
      const std::vector<float> right = pair.right, state = pair.state;
      (in_gradient ? pair.grad_left : pair.left)[3] = bad;
      try {
        step_once(*optimizer, pair, {7, options_.lr, 1.0});
        FAIL() << "accepted";
      } catch (const NumericError& error) {
        EXPECT_EQ(error.where(), pair.name + ", step 7");
      }
      EXPECT_EQ(pair.right, right);
      EXPECT_EQ(pair.state, state);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, Edges, ::testing::ValuesIn(kAllOptimizers),
                         [](const auto& which) { return which.param.name; });

}  // namespace
}  // namespace lomu::testing

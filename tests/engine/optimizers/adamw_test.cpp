// AdamW against a plain implementation in double, and clipping by the global norm.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/optimizers/optimizer.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

OptimizerOptions adamw_options() {
  OptimizerOptions options;
  options.name = OptimizerKind::kAdamW;
  options.lr = 1e-3;
  options.weight_decay = 0.1;
  return options;
}

/// One array of parameters with its moments, entry by entry as the paper writes it.
struct PlainAdamW {
  std::vector<double> x, first, second;
  explicit PlainAdamW(const std::vector<float>& start)
      : x(start.begin(), start.end()), first(x.size()), second(x.size()) {}

  void step(const std::vector<float>& grad, double clip, double lr, int t, const OptimizerOptions& o) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double g = clip * grad[i];
      first[i] = o.beta1 * first[i] + (1 - o.beta1) * g;
      second[i] = o.beta2 * second[i] + (1 - o.beta2) * g * g;
      const double first_hat = first[i] / (1 - std::pow(o.beta1, t));
      const double second_hat = second[i] / (1 - std::pow(o.beta2, t));
      x[i] = x[i] - lr * o.weight_decay * x[i] - lr * first_hat / (std::sqrt(second_hat) + o.eps);
    }
  }
};

double largest_difference(const std::vector<float>& a, const std::vector<double>& b) {
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

TEST(AdamW, FollowsAPlainImplementation) {
  std::mt19937_64 random(51);
  OwnedPair pair = random_pair(random, 67, 45, 5);  // neither a multiple of a vector nor of a block
  const OptimizerOptions options = adamw_options();
  const auto optimizer = make_optimizer(options);
  pair.give_state(*optimizer);
  PlainAdamW left(pair.left);
  PlainAdamW right(pair.right);
  for (int t = 1; t <= 20; ++t) {
    set_gradients(pair, random_dense(random, 67, 5), random_dense(random, 45, 5));
    const double lr = options.lr / t;
    left.step(pair.grad_left, 1.0, lr, t, options);
    right.step(pair.grad_right, 1.0, lr, t, options);
    step_once(*optimizer, pair, {t, lr, {}});
  }
  EXPECT_LT(largest_difference(pair.left, left.x), 3e-7);
  EXPECT_LT(largest_difference(pair.right, right.x), 3e-7);
}

TEST(AdamW, StepsDenseMatricesAndVectorsLikeAFactor) {
  std::mt19937_64 random(55);
  for (const std::int64_t rows : {1, 31}) {
    OwnedPair matrix = random_matrix(random, rows, 67);
    const OptimizerOptions options = adamw_options();
    const auto optimizer = make_optimizer(options);
    matrix.give_state(*optimizer);
    EXPECT_EQ(matrix.state.size(), static_cast<std::size_t>(2 * rows * 67));
    PlainAdamW plain(matrix.left);
    for (int t = 1; t <= 5; ++t) {
      matrix.grad_left = random_matrix(random, rows, 67).grad_left;
      plain.step(matrix.grad_left, 1.0, options.lr, t, options);
      const StepReport report = step_once(*optimizer, matrix, {t, options.lr, {}});
      EXPECT_EQ(report.pairs[0].relative_step_right, 0.0);
    }
    EXPECT_LT(largest_difference(matrix.left, plain.x), 3e-7);
  }
}

TEST(AdamW, ClipsByTheNormItIsGiven) {
  std::mt19937_64 random(52);
  OwnedPair pair = random_pair(random, 20, 30, 3);
  OptimizerOptions options = adamw_options();
  options.max_grad_norm = 0.5;
  options.eps = 1e-6;  // large enough for the size of a clipped gradient to matter
  const auto optimizer = make_optimizer(options);
  pair.give_state(*optimizer);
  PlainAdamW left(pair.left);
  const PairView view = pair.view();
  const double norm = 1e5 * std::sqrt(grad_norm_squared({&view, 1})[0]);  // other ranks hold most of the gradient
  left.step(pair.grad_left, 0.5 / (norm + 1e-6), options.lr, 1, options);
  step_once(*optimizer, pair, {1, options.lr, norm});
  EXPECT_LT(largest_difference(pair.left, left.x), 1e-7);
}

TEST(AdamW, DoesNotClipANormBelowTheLimit) {
  EXPECT_EQ(clip_factor(1.0, {1, 0.1, 0.5}), 1.0);
}

TEST(AdamW, RefusesToClipWithoutAFiniteNorm) {
  EXPECT_THROW(clip_factor(1.0, {1, 0.1, {}}), Error);
  EXPECT_THROW(clip_factor(1.0, {1, 0.1, std::numeric_limits<double>::quiet_NaN()}), NumericError);
}

TEST(AdamW, ReportsTheChangeWithoutDecay) {
  std::mt19937_64 random(53);
  OwnedPair pair = random_pair(random, 20, 30, 3);
  OptimizerOptions options = adamw_options();
  options.weight_decay = 0.0;
  const auto optimizer = make_optimizer(options);
  pair.give_state(*optimizer);
  const OwnedPair before = pair;
  const StepReport report = step_once(*optimizer, pair, {1, options.lr, {}});
  const double left = (left_of(pair) - left_of(before)).norm();
  const double right = (right_of(pair) - right_of(before)).norm();
  EXPECT_NEAR(std::sqrt(report.pairs[0].update_norm_squared), std::hypot(left, right), 1e-6);
  EXPECT_NEAR(report.pairs[0].relative_step_left, left / left_of(before).norm(), 1e-6);
}

TEST(AdamW, AcceptsAnyRankAndStart) {
  OwnedPair pair(3, 2, 8);
  pair.left_started_zero = pair.right_started_zero = true;
  const auto optimizer = make_optimizer(adamw_options());
  pair.give_state(*optimizer);
  EXPECT_NO_THROW(step_once(*optimizer, pair, {1, 1e-3, {}}));
}

TEST(AdamW, AGradientThatIsNotFiniteIsNamedAndNothingMoves) {
  std::mt19937_64 random(54);
  OwnedPair pair = random_pair(random, 20, 30, 3);
  const auto optimizer = make_optimizer(adamw_options());
  pair.give_state(*optimizer);
  pair.grad_left[1] = std::numeric_limits<float>::infinity();
  const OwnedPair before = pair;
  EXPECT_THROW(step_once(*optimizer, pair, {3, 1e-3, {}}), NumericError);
  EXPECT_EQ(pair.right, before.right);
}

}  // namespace
}  // namespace lomu::testing

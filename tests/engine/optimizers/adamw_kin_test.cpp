// LoRA+ and the preconditioned AdamW against plain implementations in double.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>

#include "engine/optimizers/optimizer.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

double to_float(double x) {
  return static_cast<float>(x);
}

/// AdamW of one matrix as the paper writes it; what is stored is rounded after every step.
struct PlainAdamW {
  Dense x, first, second;
  explicit PlainAdamW(const Dense& start)
      : x(start), first(start.rows(), start.columns()), second(start.rows(), start.columns()) {}

  void step(const Dense& g, double lr, std::int64_t t, const OptimizerOptions& o) {
    const auto time = static_cast<double>(t);
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      for (std::int64_t j = 0; j < x.columns(); ++j) {
        const double m = o.beta1 * first(i, j) + (1 - o.beta1) * g(i, j);
        const double v = o.beta2 * second(i, j) + (1 - o.beta2) * g(i, j) * g(i, j);
        const double m_hat = m / (1 - std::pow(o.beta1, time));
        const double v_hat = v / (1 - std::pow(o.beta2, time));
        x(i, j) = to_float(x(i, j) * (1 - lr * o.weight_decay) - lr * m_hat / (std::sqrt(v_hat) + o.eps));
        first(i, j) = to_float(m);
        second(i, j) = to_float(v);
      }
    }
  }
};

struct Shape {
  std::int64_t m, n, r;
};
constexpr std::array<Shape, 6> kShapes{{{1, 1, 1}, {33, 17, 1}, {40, 7, 7}, {31, 1100, 16}, {5, 3, 2}, {4, 6, 9}}};

OptimizerOptions options_of(OptimizerKind name) {
  OptimizerOptions o;
  o.name = name;
  o.lr = 1e-3;
  o.weight_decay = 0.1;
  return o;
}

/// Where an entry's gradient is near zero at the first step, AdamW's step is as sensitive as a sign: random gradients
/// do not come near enough for 1e-5.
constexpr double kTolerance = 1e-5;

TEST(LoraPlus, MovesTheLeftFactorByTheRatioTimesTheRate) {
  std::mt19937_64 random(91);
  for (const auto& [m, n, r] : kShapes) {
    OptimizerOptions o = options_of(OptimizerKind::kLoraPlus);
    o.lr_ratio = 16.0;
    const auto optimizer = make_optimizer(o);
    OwnedPair pair = random_pair(random, m, n, r);
    pair.give_state(*optimizer);
    EXPECT_EQ(pair.state.size(), static_cast<std::size_t>(2 * (m + n) * r));
    PlainAdamW left(left_of(pair)), right(right_of(pair));
    for (std::int64_t t = 1; t <= 6; ++t) {
      const Dense gl = random_dense(random, m, r).map(to_float), gr = random_dense(random, n, r).map(to_float);
      set_gradients(pair, gl, gr);
      const Dense old_left = left.x, old_right = right.x;
      left.step(gl, 16.0 * o.lr, t, o);
      right.step(gr, o.lr, t, o);
      step_once(*optimizer, pair, {t, o.lr, {}});
      EXPECT_LT(step_error(left_of(pair), left.x, old_left), kTolerance);
      EXPECT_LT(step_error(right_of(pair), right.x, old_right), kTolerance);
    }
  }
}

TEST(LoraPlus, ADecayThatTheLargerRateMakesTooLargeIsRefused) {
  std::mt19937_64 random(92);
  OptimizerOptions o = options_of(OptimizerKind::kLoraPlus);
  o.lr = 0.1;
  o.weight_decay = 1.0;  // 16 x 0.1 x 1 > 1
  const auto optimizer = make_optimizer(o);
  OwnedPair pair = random_pair(random, 6, 5, 2);
  pair.give_state(*optimizer);
  EXPECT_THROW(step_once(*optimizer, pair, {1, o.lr, {}}), UsageError);
}

TEST(ScaledAdamW, IsAdamWOnPreconditionedGradients) {
  std::mt19937_64 random(93);
  for (const auto& [m, n, r] : kShapes) {
    OptimizerOptions o = options_of(OptimizerKind::kScaledAdamW);
    o.delta = 1e-2;
    const auto optimizer = make_optimizer(o);
    OwnedPair pair = random_pair(random, m, n, r);
    pair.give_state(*optimizer);
    PlainAdamW left(left_of(pair)), right(right_of(pair));
    for (std::int64_t t = 1; t <= 4; ++t) {
      const Dense gl = random_dense(random, m, r).map(to_float), gr = random_dense(random, n, r).map(to_float);
      set_gradients(pair, gl, gr);
      const Dense old_left = left.x, old_right = right.x;
      const Dense ridge = o.delta * identity(r);
      left.step(gl * inverse(old_right.transpose() * old_right + ridge), o.lr, t, o);
      right.step(gr * inverse(old_left.transpose() * old_left + ridge), o.lr, t, o);
      const StepReport report = step_once(*optimizer, pair, {t, o.lr, {}});
      EXPECT_LT(step_error(left_of(pair), left.x, old_left), kTolerance) << m << " " << n << " " << r;
      EXPECT_LT(step_error(right_of(pair), right.x, old_right), kTolerance) << m << " " << n << " " << r;
      const double moved = (left.x - (1 - o.lr * o.weight_decay) * old_left).norm();
      EXPECT_NEAR(report.pairs[0].relative_step_left * old_left.norm(), moved, 1e-4 * moved);
    }
  }
}

TEST(ScaledAdamW, StartsFromAZeroFactor) {
  std::mt19937_64 random(94);
  OwnedPair pair(12, 9, 3);
  pair.left_started_zero = true;
  set_right(pair, random_dense(random, 9, 3));
  const auto optimizer = make_optimizer(options_of(OptimizerKind::kScaledAdamW));
  pair.give_state(*optimizer);
  set_gradients(pair, random_dense(random, 12, 3), Dense(9, 3));  // with P = 0 the right gradient is zero
  const Dense right = right_of(pair);
  step_once(*optimizer, pair, {1, 1e-3, {}});
  EXPECT_GT(left_of(pair).norm(), 0.0);
  EXPECT_LT((right_of(pair) - (1 - 1e-4) * right).norm(), 1e-7 * right.norm());
}

TEST(AdamWKin, RefuseDenseMatricesByName) {
  std::mt19937_64 random(95);
  for (const auto kind : {OptimizerKind::kLoraPlus, OptimizerKind::kScaledAdamW, OptimizerKind::kMuonFactors,
                          OptimizerKind::kSpectron, OptimizerKind::kLoraRite, OptimizerKind::kLoraRiteCore}) {
    OwnedPair matrix = random_matrix(random, 6, 5);
    const auto optimizer = make_optimizer(options_of(kind));
    const PairView view = matrix.view();
    try {
      optimizer->check({&view, 1});
      FAIL() << "accepted";
    } catch (const UsageError& error) {
      EXPECT_NE(error.hint().find("optimizer.groups"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace lomu::testing

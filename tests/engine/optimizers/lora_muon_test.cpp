// LoRA-Muon's fast path against its definition, and the properties the step is built for.
#include "engine/optimizers/lora_muon.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "engine/optimizers/gauge_balance.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

OptimizerOptions exact_options() {
  OptimizerOptions options;
  options.lr = 0.02;
  options.balance_every = 0;
  return options;
}

/// Largest of the four errors of one step against the reference.
double error_against_reference(OwnedPair pair, const OptimizerOptions& options) {
  const ReferenceProblem problem = problem_of(pair, options);
  const ReferenceState expected = reference_step(problem);
  step_once(*make_optimizer(options), pair, {1, options.lr, {}});
  const ReferenceState got = problem_of(pair, options).before;
  const auto error = [&](auto field, std::int64_t rows) {
    return step_error(Dense((got.*field).data(), rows, pair.r), Dense((expected.*field).data(), rows, pair.r),
                      Dense((problem.before.*field).data(), rows, pair.r));
  };
  return std::max({error(&ReferenceState::left, pair.m), error(&ReferenceState::right, pair.n),
                   error(&ReferenceState::momentum_left, pair.m), error(&ReferenceState::momentum_right, pair.n)});
}

struct Shape {
  std::int64_t m, n, r;
};

class LoraMuonShapes : public ::testing::TestWithParam<Shape> {};

TEST_P(LoraMuonShapes, IsEquivalentToReference) {
  const auto [m, n, r] = GetParam();
  std::mt19937_64 random(static_cast<std::uint64_t>(m * 1000003 + n * 1009 + r));
  OptimizerOptions options = exact_options();
  for (const bool nesterov : {false, true}) {
    options.nesterov = nesterov;
    options.weight_decay = nesterov ? 0.1 : 0.0;
    OwnedPair pair = random_pair(random, m, n, r);
    pair.scale = nesterov ? 2.0 : 0.25;
    EXPECT_LT(error_against_reference(pair, options), 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LoraMuonShapes,
                         ::testing::Values(Shape{1, 1, 1}, Shape{5, 3, 2}, Shape{33, 17, 1}, Shape{40, 7, 7},
                                           Shape{7, 40, 7}, Shape{64, 64, 8}, Shape{130, 100, 9}, Shape{1025, 31, 16},
                                           Shape{31, 2049, 16}, Shape{100, 90, 24}, Shape{257, 300, 33},
                                           Shape{160, 96, 64}),
                         [](const auto& which) {
                           const Shape& s = which.param;
                           return std::to_string(s.m) + "x" + std::to_string(s.n) + "r" + std::to_string(s.r);
                         });

TEST(LoraMuon, Rank256IsEquivalentToReference) {
  std::mt19937_64 random(256);
  EXPECT_LT(error_against_reference(random_pair(random, 320, 300, 256), exact_options()), 1e-6);
}

TEST(LoraMuon, IllConditionedMomentumCostsNoAccuracy) {
  // Rounding the momentum to float32 before its Gram would cost 2^-24 times the condition: 6e-4 at 1e4.
  std::mt19937_64 random(7);
  for (const double condition : {1e2, 1e3, 1e4}) {
    OwnedPair pair = random_pair(random, 96, 64, 16);
    const Dense zero_left = Dense(96, 16);
    const Dense zero_right = Dense(64, 16);
    set_momenta(pair, zero_left, zero_right);
    set_gradients(pair, random_with_condition(random, 96, 16, condition),
                  random_with_condition(random, 64, 16, condition));
    EXPECT_LT(error_against_reference(pair, exact_options()), 1e-6) << condition;
  }
}

TEST(LoraMuon, IllConditionedFactorsCostNoAccuracy) {
  std::mt19937_64 random(8);
  for (const double condition : {1e2, 1e3, 1e4}) {
    OwnedPair pair = random_pair(random, 96, 64, 16);
    set_left(pair, random_with_condition(random, 96, 16, condition));
    set_right(pair, random_with_condition(random, 64, 16, condition));
    EXPECT_LT(error_against_reference(pair, exact_options()), 1e-6) << condition;
  }
}

TEST(LoraMuon, RankDeficientMomentumMovesOnlyItsOwnDirections) {
  std::mt19937_64 random(9);
  OwnedPair pair = random_pair(random, 60, 50, 8);
  // Small integers times a power of two: the product of rank 3 is exact in float32.
  const auto integers = [&](std::int64_t rows, std::int64_t columns) {
    return random_dense(random, rows, columns, 4.0).map([](double x) { return std::round(x) / 1024.0; });
  };
  const Dense left_basis = integers(60, 3);
  set_momenta(pair, Dense(60, 8), Dense(50, 8));
  set_gradients(pair, left_basis * integers(3, 8), integers(50, 2) * integers(2, 8));
  EXPECT_LT(error_against_reference(pair, exact_options()), 1e-6);

  const Dense before = left_of(pair);
  step_once(*make_optimizer(exact_options()), pair, {1, 0.02, {}});
  const Dense product_step = (left_of(pair) - before) * right_of(pair).transpose();
  const std::vector<double> sigma = singular_values(product_step);
  EXPECT_LT(sigma[3], 1e-5 * sigma[0]);
}

TEST(LoraMuon, ZeroGradientsOnlyDecay) {
  std::mt19937_64 random(10);
  OwnedPair pair = random_pair(random, 24, 20, 4);
  set_momenta(pair, Dense(24, 4), Dense(20, 4));
  set_gradients(pair, Dense(24, 4), Dense(20, 4));
  const std::vector<float> left = pair.left;
  OptimizerOptions options = exact_options();
  step_once(*make_optimizer(options), pair, {1, options.lr, {}});
  EXPECT_EQ(pair.left, left);
  options.weight_decay = 0.5;
  step_once(*make_optimizer(options), pair, {1, options.lr, {}});
  EXPECT_FLOAT_EQ(pair.left[0], static_cast<float>(std::sqrt(0.99) * left[0]));
}

TEST(LoraMuon, AZeroLearningRateOnlyMovesTheMomentum) {
  std::mt19937_64 random(11);
  OwnedPair pair = random_pair(random, 24, 20, 4);
  const OwnedPair before = pair;
  step_once(*make_optimizer(exact_options()), pair, {1, 0.0, {}});
  EXPECT_EQ(pair.left, before.left);
  EXPECT_EQ(pair.right, before.right);
  EXPECT_FLOAT_EQ(pair.state[0], 0.9f * before.state[0] + 0.1f * before.grad_left[0]);
}

/// Spectral norms of s dP Q^T and s P dQ^T of one step with momentum 0.
std::pair<double, double> product_steps(OwnedPair pair, const OptimizerOptions& options) {
  const Dense p = left_of(pair);
  const Dense q = right_of(pair);
  step_once(*make_optimizer(options), pair, {1, options.lr, {}});
  return {pair.scale * spectral_norm_of((left_of(pair) - p) * q.transpose()),
          pair.scale * spectral_norm_of(p * (right_of(pair) - q).transpose())};
}

TEST(LoraMuon, SpectralSizeOfTheStepIsHalfEtaForEveryScaleAndRank) {
  std::mt19937_64 random(12);
  for (const std::int64_t rank : {1, 2, 8, 24}) {
    for (const double scale : {0.125, 1.0, 16.0}) {
      OwnedPair pair = random_pair(random, 48, 40, rank);
      pair.scale = scale;
      const auto [left, right] = product_steps(pair, exact_options());
      EXPECT_NEAR(left, 0.01, 1e-6) << rank << " " << scale;
      EXPECT_NEAR(right, 0.01, 1e-6) << rank << " " << scale;
    }
  }
}

TEST(LoraMuon, MultipliersScaleTheSpectralSize) {
  std::mt19937_64 random(13);
  const OwnedPair pair = random_pair(random, 90, 40, 8);
  OptimizerOptions options = exact_options();
  options.multiplier = StepMultiplier::kSqrtMOverN;
  EXPECT_NEAR(product_steps(pair, options).first, 0.01 * 1.5, 1e-7);
  options.multiplier = StepMultiplier::kFrobenius;
  EXPECT_NEAR(product_steps(pair, options).first, 0.01 / std::sqrt(8.0), 1e-7);
  options.multiplier = StepMultiplier::kRms;
  EXPECT_NEAR(product_steps(pair, options).first, 0.01 * 0.2 * std::sqrt(90.0 * 40.0 / 8.0), 1e-6);
  options.multiplier = StepMultiplier::kRmsOverWidth;
  options.hidden_size = 60;
  EXPECT_NEAR(product_steps(pair, options).first, 0.01 * std::sqrt(90.0 * 40.0 / 8.0) / 60.0, 1e-7);
}

TEST(LoraMuon, FrobeniusMultiplierGivesEveryRankTheSameFrobeniusNorm) {
  std::mt19937_64 random(16);
  OptimizerOptions options = exact_options();
  options.multiplier = StepMultiplier::kFrobenius;
  for (const std::int64_t rank : {1, 3, 8, 24}) {
    OwnedPair pair = random_pair(random, 48, 40, rank);
    const Dense p = left_of(pair);
    const Dense q = right_of(pair);
    step_once(*make_optimizer(options), pair, {1, options.lr, {}});
    EXPECT_NEAR((pair.scale * (left_of(pair) - p) * q.transpose()).norm(), options.lr / 2, 1e-4 * options.lr) << rank;
    EXPECT_NEAR((pair.scale * p * (right_of(pair) - q).transpose()).norm(), options.lr / 2, 1e-4 * options.lr) << rank;
  }
}

TEST(LoraMuon, RmsOverWidthMovesTheEntriesOfAllShapesAndRanksAlikeAndIsFrobeniusWhereAllSidesAreTheWidth) {
  std::mt19937_64 random(18);
  OptimizerOptions options = exact_options();
  options.multiplier = StepMultiplier::kRmsOverWidth;
  options.hidden_size = 40;
  for (const auto& [m, n, rank] : {std::array{40, 40, 1}, {40, 40, 8}, {120, 40, 8}, {40, 120, 5}, {10, 40, 8}}) {
    OwnedPair pair = random_pair(random, m, n, rank);
    const Dense p = left_of(pair);
    const Dense q = right_of(pair);
    step_once(*make_optimizer(options), pair, {1, options.lr, {}});
    const double rms = (pair.scale * (left_of(pair) - p) * q.transpose()).norm() / std::sqrt(double(m) * n);
    EXPECT_NEAR(rms * 40, options.lr / 2, 1e-4 * options.lr) << m << " x " << n << ", rank " << rank;
  }
}

TEST(LoraMuon, RmsOverWidthWithoutAWidthIsRefused) {
  OptimizerOptions options = exact_options();
  options.multiplier = StepMultiplier::kRmsOverWidth;
  EXPECT_THROW(make_optimizer(options), UsageError);
}

TEST(LoraMuon, RmsMultiplierGivesTheRootMeanSquareOfAdamW) {
  std::mt19937_64 random(14);
  OwnedPair pair = random_pair(random, 90, 40, 8);
  OptimizerOptions options = exact_options();
  options.multiplier = StepMultiplier::kRms;
  const Dense p = left_of(pair);
  const Dense q = right_of(pair);
  step_once(*make_optimizer(options), pair, {1, options.lr, {}});
  const Dense change = (left_of(pair) - p) * q.transpose();
  EXPECT_NEAR(change.norm() / std::sqrt(90.0 * 40.0), 0.2 * options.lr / 2, 1e-7);
}

TEST(LoraMuon, ProductDecaysByOneMinusLambdaEtaBesideTheUndampedFirstOrderStep) {
  std::mt19937_64 random(15);
  const OwnedPair start = random_pair(random, 48, 40, 8);
  OptimizerOptions options = exact_options();
  OwnedPair plain = start;
  step_once(*make_optimizer(options), plain, {1, options.lr, {}});
  options.weight_decay = 0.5;
  OwnedPair decayed = start;
  step_once(*make_optimizer(options), decayed, {1, options.lr, {}});

  const Dense p = left_of(start);
  const Dense q = right_of(start);
  const Dense dp = left_of(plain) - p;
  const Dense dq = right_of(plain) - q;
  const double keep = 1.0 - 0.5 * options.lr;
  const Dense expected =
      keep * p * q.transpose() + dp * q.transpose() + p * dq.transpose() + (1.0 / keep) * dp * dq.transpose();
  const Dense got = left_of(decayed) * right_of(decayed).transpose();
  EXPECT_LT((got - expected).norm(), 1e-6 * expected.norm());
}

TEST(LoraMuon, GaugeOfTheFactorsDoesNotMatter) {
  std::mt19937_64 random(16);
  for (const double condition : {3.0, 300.0}) {
    OwnedPair pair = random_pair(random, 64, 48, 8);
    const Dense u = random_orthonormal(random, 8, 8);
    const Dense v = random_orthonormal(random, 8, 8);
    std::vector<double> sigma = spectrum_of_condition(8, condition);
    const Dense gauge = u * diagonal(sigma) * v.transpose();
    for (double& x : sigma) x = 1.0 / x;
    const Dense inverse_transposed = u * diagonal(sigma) * v.transpose();
    // W is a function of the product, so gradients and momenta transform against the factors: g_P by R^-T, g_Q by R.
    const Dense g = random_dense(random, 64, 48, 1e-3);
    OwnedPair other = pair;
    set_left(other, left_of(pair) * gauge);
    set_right(other, right_of(pair) * inverse_transposed);
    for (OwnedPair* p : {&pair, &other}) {
      set_momenta(*p, Dense(64, 8), Dense(48, 8));
      set_gradients(*p, g * right_of(*p), g.transpose() * left_of(*p));
    }
    const Dense before = left_of(pair) * right_of(pair).transpose();
    const Dense other_before = left_of(other) * right_of(other).transpose();
    step_once(*make_optimizer(exact_options()), pair, {1, 0.02, {}});
    step_once(*make_optimizer(exact_options()), other, {1, 0.02, {}});
    const Dense change = left_of(pair) * right_of(pair).transpose() - before;
    const Dense other_change = left_of(other) * right_of(other).transpose() - other_before;
    EXPECT_LT((change - other_change).norm(), 1e-6 * condition * change.norm());
  }
}

double to_float32(double x) {
  return static_cast<float>(x);
}

TEST(LoraMuon, BalancingLeavesEveryBitOfTheProductAlone) {
  std::mt19937_64 random(17);
  OwnedPair pair = random_pair(random, 48, 40, 8);
  set_left(pair, 700.0 * left_of(pair));
  OwnedPair balanced = pair;
  OptimizerOptions options = exact_options();
  options.weight_decay = 0.1;
  const auto never = make_optimizer(options);
  options.balance_every = 2;
  const auto often = make_optimizer(options);
  for (std::int64_t step = 1; step <= 6; ++step) {
    // The gradients of the same function of the product: scaled exactly, as the factors are powers of two apart.
    const Dense g = random_dense(random, 48, 40, 1e-3);
    const double c = static_cast<double>(balanced.left[0]) / pair.left[0];
    const Dense grad_left = (g * right_of(pair)).map(to_float32);
    const Dense grad_right = (g.transpose() * left_of(pair)).map(to_float32);
    set_gradients(pair, grad_left, grad_right);
    set_gradients(balanced, (1.0 / c) * grad_left, c * grad_right);
    step_once(*never, pair, {step, 0.02, {}});
    step_once(*often, balanced, {step, 0.02, {}});
  }
  const double c = static_cast<double>(balanced.left[0]) / pair.left[0];
  EXPECT_NE(c, 1.0);
  EXPECT_EQ(left_of(balanced), c * left_of(pair));
  EXPECT_EQ(c * right_of(balanced), right_of(pair));
  const double ratio = spectral_norm_of(left_of(balanced)) / spectral_norm_of(right_of(balanced));
  EXPECT_GT(ratio, 0.5);
  EXPECT_LT(ratio, 2.0);
}

TEST(LoraMuon, BalancingLeavesAZeroFactorAlone) {
  OwnedPair pair(4, 3, 2);
  std::fill(pair.right.begin(), pair.right.end(), 1.0f);
  pair.state.assign(14, 1.0f);
  EXPECT_EQ(balance_gauge(pair.view(), {pair.state.data(), 8}, {pair.state.data() + 8, 6}), 1.0);
  EXPECT_EQ(pair.right[0], 1.0f);
}

TEST(LoraMuon, ReportsWhatItDid) {
  std::mt19937_64 random(18);
  OwnedPair pair = random_pair(random, 48, 40, 8);
  const OwnedPair before = pair;
  const StepReport report = step_once(*make_optimizer(exact_options()), pair, {1, 0.02, {}});
  ASSERT_EQ(report.pairs.size(), 1u);
  const Dense dp = left_of(pair) - left_of(before);
  const Dense dq = right_of(pair) - right_of(before);
  EXPECT_NEAR(report.pairs[0].update_norm_squared, dp.norm() * dp.norm() + dq.norm() * dq.norm(), 1e-7);
  EXPECT_NEAR(report.pairs[0].relative_step_left, dp.norm() / left_of(before).norm(), 1e-6);
  EXPECT_NEAR(report.pairs[0].relative_step_right, dq.norm() / right_of(before).norm(), 1e-6);
  const PairView view = pair.view();
  EXPECT_NEAR(report.pairs[0].grad_norm_squared, grad_norm_squared({&view, 1})[0],
              1e-12 * report.pairs[0].grad_norm_squared);
  EXPECT_EQ(report.pairs[0].cholesky_raises, 0);
}

TEST(LoraMuon, ASingularFactorIsShiftedAndCounted) {
  std::mt19937_64 random(19);
  OwnedPair pair = random_pair(random, 48, 40, 4);
  Dense q = right_of(pair);
  for (std::int64_t i = 0; i < q.rows(); ++i) q(i, 3) = q(i, 2);
  set_right(pair, q);
  const StepReport report = step_once(*make_optimizer(exact_options()), pair, {1, 0.02, {}});
  EXPECT_GT(report.pairs[0].cholesky_raises, 0);
  EXPECT_TRUE(std::isfinite(left_of(pair).norm()));
}

TEST(LoraMuon, AGradientThatIsNotFiniteIsNamedAndNothingMoves) {
  std::mt19937_64 random(20);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    OwnedPair pair = random_pair(random, 48, 40, 4);
    pair.grad_right[7] = bad;
    const OwnedPair before = pair;
    try {
      step_once(*make_optimizer(exact_options()), pair, {12, 0.02, {}});
      FAIL() << "a bad gradient was accepted";
    } catch (const NumericError& error) {
      EXPECT_EQ(error.where(), "layers.0.q_proj, step 12");
      EXPECT_THAT(error.what(), ::testing::HasSubstr("right"));
    }
    EXPECT_EQ(pair.left, before.left);
    EXPECT_EQ(pair.state, before.state);
  }
}

TEST(LoraMuon, RefusesARankAboveTheSmallerSideByName) {
  std::mt19937_64 random(21);
  OwnedPair pair = random_pair(random, 48, 4, 8);
  EXPECT_THROW(step_once(*make_optimizer(exact_options()), pair, {1, 0.02, {}}), UsageError);
}

TEST(LoraMuon, ClippingWeighsTheBatchInTheMomentum) {
  std::mt19937_64 random(22);
  OwnedPair pair = random_pair(random, 24, 20, 4);
  OptimizerOptions options = exact_options();
  options.max_grad_norm = 0.5;
  const OwnedPair before = pair;
  step_once(*make_optimizer(options), pair, {1, 0.02, 2.0});
  EXPECT_NEAR(pair.state[0], 0.9 * before.state[0] + 0.1 * 0.25 * before.grad_left[0], 1e-9);
}

}  // namespace
}  // namespace lomu::testing

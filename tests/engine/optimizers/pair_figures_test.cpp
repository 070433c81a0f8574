// Telemetry against dense matrices: every figure from Grams is compared with one from the singular values of the whole
// matrix, by a decomposition that forms no Gram.
#include "engine/optimizers/pair_figures.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

constexpr double kRate = 0.03;
constexpr double kDamping = 0.1;

OptimizerOptions plain() {
  OptimizerOptions options;
  options.lr = kRate;
  options.damping = kDamping;
  options.balance_every = 0;
  return options;
}

OwnedPair seeded_pair(unsigned seed, std::int64_t m, std::int64_t n, std::int64_t r) {
  std::mt19937_64 random(seed);
  OwnedPair pair = random_pair(random, m, n, r);
  pair.scale = 1.5;
  return pair;
}

PairFigures step_figures(const OwnedPair& start, const OptimizerOptions& options) {
  OwnedPair pair = start;
  const auto optimizer = make_optimizer(options);
  return step_once(*optimizer, pair, {1, options.lr, std::nullopt, true}).pairs.front().figures;
}

/// beta m + (1 - beta) g, as n x r for the right side.
Dense direction_of(const OwnedPair& pair, bool right) {
  const std::int64_t rows = right ? pair.r : pair.m;
  const std::int64_t columns = right ? pair.n : pair.r;
  const float* momentum = pair.state.data() + (right ? pair.left.size() : 0);
  const float* grad = right ? pair.grad_right.data() : pair.grad_left.data();
  const Dense d = 0.9 * Dense(momentum, rows, columns) + 0.1 * Dense(grad, rows, columns);
  return right ? d.transpose() : d;
}

/// Some F with F F^T = C^-1 for C = X^T X.
Dense root_of_inverse_metric(const Dense& x) {
  const Svd parts = svd(x);
  std::vector<double> inverse = parts.values;
  for (double& value : inverse) value = 1.0 / value;
  return parts.v * diagonal(inverse);
}

double quantile_of(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const double low = values[static_cast<std::size_t>(std::floor(at))];
  const double high = values[static_cast<std::size_t>(std::ceil(at))];
  return low + (high - low) * (at - std::floor(at));
}

void expect_momentum(const Dense& y, const PairFigures& figures, Figure first, Figure missed) {
  std::vector<double> sigma = singular_values(y);
  for (double& value : sigma) value /= y.norm();
  std::size_t at = static_cast<std::size_t>(first);
  for (const double q : {0.0, 0.1, 0.5, 0.9, 1.0}) {
    EXPECT_NEAR(figures.values()[at], quantile_of(sigma, q), 1e-7) << name_of(static_cast<Figure>(at));
    ++at;
  }
  const auto below = std::count_if(sigma.begin(), sigma.end(), [](double s) { return s < 1.07e-3; });
  EXPECT_DOUBLE_EQ(figures[missed], static_cast<double>(below) / static_cast<double>(sigma.size()));
}

/// Every figure of a step against the dense definitions. `left`, `right`: P and Q, whose metrics stand under Q and P.
void expect_dense_step(const OwnedPair& pair, const PairFigures& figures, const Dense& metric_left,
                       const Dense& metric_right) {
  const Dense p = left_of(pair);
  const Dense q = right_of(pair);
  const Dense y_left = direction_of(pair, false) * root_of_inverse_metric(metric_left);
  const Dense y_right = direction_of(pair, true) * root_of_inverse_metric(metric_right);
  expect_momentum(y_left, figures, Figure::kMomentumLeftSmallest, Figure::kMissedLeft);
  expect_momentum(y_right, figures, Figure::kMomentumRightSmallest, Figure::kMissedRight);

  const double reach = kRate / (2.0 * pair.scale);
  const Dense dp = -reach * (matrix_sign(y_left) * root_of_inverse_metric(metric_left).transpose());
  const Dense dq = -reach * (matrix_sign(y_right) * root_of_inverse_metric(metric_right).transpose());
  const Dense change = (p + dp) * (q + dq).transpose() - p * q.transpose();
  EXPECT_NEAR(figures[Figure::kStepSize], pair.scale * spectral_norm_of(change) / kRate, 1e-6);
  EXPECT_NEAR(figures[Figure::kCrossTerm], pair.scale * spectral_norm_of(dp * dq.transpose()) / kRate, 1e-6);
}

TEST(PairFigures, OfAStepAreThoseOfTheDenseMatrices) {
  for (const auto& [m, n, r] :
       {std::array<std::int64_t, 3>{40, 30, 4}, {30, 44, 7}, {26, 26, 1}, {2100, 40, 8}, {40, 2100, 12}}) {
    SCOPED_TRACE(::testing::Message() << m << " x " << n << ", rank " << r);
    const OwnedPair pair = seeded_pair(71, m, n, r);
    expect_dense_step(pair, step_figures(pair, plain()), right_of(pair), left_of(pair));
  }
}

TEST(PairFigures, OfADampedStepFollowTheDampedMetric) {
  OwnedPair pair = seeded_pair(72, 40, 30, 5);
  pair.left_started_zero = true;
  const double c = kRate / (2.0 * kDamping * pair.scale);
  // C = P^T P + c^2 (Q^T Q)^-1 is the Gram of P stacked on c (F^T), F F^T = (Q^T Q)^-1.
  const Dense metric = stacked(left_of(pair), c * root_of_inverse_metric(right_of(pair)).transpose());
  expect_dense_step(pair, step_figures(pair, plain()), right_of(pair), metric);
}

TEST(PairFigures, OfNewtonSchulzHaveTheExactSpectrum) {
  const OwnedPair pair = seeded_pair(73, 40, 30, 5);
  OptimizerOptions options = plain();
  options.orthogonalizer = Orthogonalizer::kNewtonSchulz;
  const PairFigures exact = step_figures(pair, plain());
  const PairFigures recursions = step_figures(pair, options);
  EXPECT_DOUBLE_EQ(recursions[Figure::kMomentumLeftMedian], exact[Figure::kMomentumLeftMedian]);
  EXPECT_DOUBLE_EQ(recursions[Figure::kMomentumRightLargest], exact[Figure::kMomentumRightLargest]);
  EXPECT_NEAR(recursions[Figure::kStepSize], exact[Figure::kStepSize], 0.01);
}

TEST(PairFigures, OfMuonHaveTheSpectrumOfTheMomentumItself) {
  OptimizerOptions options = plain();
  options.name = OptimizerKind::kMuonFactors;
  const OwnedPair pair = seeded_pair(79, 40, 30, 5);
  const PairFigures factors = step_figures(pair, options);
  expect_momentum(direction_of(pair, false), factors, Figure::kMomentumLeftSmallest, Figure::kMissedLeft);
  expect_momentum(direction_of(pair, true), factors, Figure::kMomentumRightSmallest, Figure::kMissedRight);

  options.name = OptimizerKind::kMuon;
  for (const auto orthogonalizer : {Orthogonalizer::kExact, Orthogonalizer::kNewtonSchulz}) {
    options.orthogonalizer = orthogonalizer;
    for (const auto& [m, n] : {std::array<std::int64_t, 2>{40, 30}, {30, 44}}) {
      std::mt19937_64 random(80);
      OwnedPair matrix = random_matrix(random, m, n);
      const Dense momentum = random_dense(random, m, n, 1e-4);
      matrix.state.assign(momentum.values().begin(), momentum.values().end());
      const Dense direction = 0.9 * Dense(matrix.state.data(), m, n) + 0.1 * Dense(matrix.grad_left.data(), m, n);
      const PairFigures dense = step_figures(matrix, options);
      expect_momentum(direction, dense, Figure::kMomentumLeftSmallest, Figure::kMissedLeft);
      EXPECT_TRUE(std::isnan(dense[Figure::kMomentumRightMedian]));
    }
  }
}

TEST(PairFigures, CountWhatFiveNewtonSchulzStepsMiss) {
  std::mt19937_64 random(74);
  OwnedPair pair = random_pair(random, 60, 50, 6);
  // Factors with orthonormal columns: F is a rotation, and the whitened momentum has the spectrum of the momentum.
  set_left(pair, random_orthonormal(random, 60, 6));
  set_right(pair, random_orthonormal(random, 50, 6));
  const std::vector<double> sigma = {1.0, 0.1, 0.01, 5e-4, 2e-4, 1e-4};
  const Dense left = random_orthonormal(random, 60, 6) * diagonal(sigma);
  set_momenta(pair, left, random_orthonormal(random, 50, 6));
  set_gradients(pair, left, random_orthonormal(random, 50, 6));
  const PairFigures figures = step_figures(pair, plain());
  EXPECT_DOUBLE_EQ(figures[Figure::kMissedLeft], 0.5);
  EXPECT_DOUBLE_EQ(figures[Figure::kMissedRight], 0.0);
}

TEST(PairFigures, DoNotDependOnTheGauge) {
  const OwnedPair pair = seeded_pair(75, 40, 30, 5);
  OwnedPair other = pair;  // P R, Q R^-1 with R = 8, exact in float32
  for (auto* grown : {&other.left, &other.grad_right}) {
    for (float& x : *grown) x *= 8.0f;
  }
  for (auto* shrunk : {&other.right, &other.grad_left}) {
    for (float& x : *shrunk) x /= 8.0f;
  }
  for (std::size_t i = 0; i < other.state.size(); ++i) other.state[i] *= i < other.left.size() ? 0.125f : 8.0f;
  const PairFigures a = step_figures(pair, plain());
  const PairFigures b = step_figures(other, plain());
  for (std::size_t i = 0; i < kFigures; ++i) {
    if (std::isnan(a.values()[i])) continue;
    EXPECT_NEAR(a.values()[i], b.values()[i], 1e-9 * std::abs(a.values()[i]) + 1e-12)
        << name_of(static_cast<Figure>(i));
  }
}

TEST(PairFigures, OfFactorsAreThoseOfTheDenseProduct) {
  OwnedPair pair = seeded_pair(76, 40, 30, 6);
  const std::vector<PairView> views = {pair.view()};
  const PairFigures figures = describe_factors(views).front();
  const std::vector<double> all = singular_values(pair.scale * left_of(pair) * right_of(pair).transpose());
  const std::vector<double> sigma(all.begin(), all.begin() + 6);
  EXPECT_NEAR(figures[Figure::kProductLargest], sigma.front(), 1e-7 * sigma.front());
  EXPECT_NEAR(figures[Figure::kProductMedian], quantile_of(sigma, 0.5), 1e-7 * sigma.front());
  EXPECT_NEAR(figures[Figure::kProductSmallest], sigma.back(), 1e-7 * sigma.front());
  double sum = 0;
  for (const double s : sigma) sum += s * s;
  EXPECT_NEAR(figures[Figure::kStableRank], sum / (sigma.front() * sigma.front()), 1e-6);
  const auto condition = [](const Dense& x) {
    const std::vector<double> values = singular_values(x);
    return std::pow(values.front() / values.back(), 2);
  };
  EXPECT_NEAR(figures[Figure::kConditionLeft] / condition(left_of(pair)), 1.0, 1e-9);
  EXPECT_NEAR(figures[Figure::kNormLeft], left_of(pair).norm(), 1e-12 * left_of(pair).norm());
  EXPECT_NEAR(figures[Figure::kNormRight], right_of(pair).norm(), 1e-12 * right_of(pair).norm());
  EXPECT_NEAR(figures[Figure::kConditionRight] / condition(right_of(pair)), 1.0, 1e-9);
}

TEST(PairFigures, OfAZeroFactorAreZeroOrNone) {
  OwnedPair pair = seeded_pair(77, 40, 30, 6);
  std::fill(pair.left.begin(), pair.left.end(), 0.0f);
  pair.left_started_zero = true;
  const std::vector<PairView> views = {pair.view()};
  const PairFigures factors = describe_factors(views).front();
  EXPECT_EQ(factors[Figure::kProductLargest], 0.0);
  EXPECT_TRUE(std::isnan(factors[Figure::kConditionLeft]));
  // Half of the promised size is P's step, and Q's does nothing yet but through it.
  const PairFigures step = step_figures(pair, plain());
  EXPECT_GE(step[Figure::kStepSize], 0.5 - step[Figure::kCrossTerm]);
  EXPECT_LE(step[Figure::kStepSize], 0.5 + step[Figure::kCrossTerm]);
  EXPECT_LE(step[Figure::kCrossTerm], kDamping / 2.0 + 1e-9);
}

TEST(PairFigures, AskedForOrNotTheStepIsTheSame) {
  const auto optimizer = make_optimizer(plain());
  OwnedPair asked = seeded_pair(78, 50, 33, 5);
  OwnedPair not_asked = asked;
  step_once(*optimizer, asked, {1, kRate, std::nullopt, true});
  const StepReport report = step_once(*optimizer, not_asked, {1, kRate});
  EXPECT_EQ(asked.left, not_asked.left);
  EXPECT_EQ(asked.right, not_asked.right);
  EXPECT_EQ(asked.state, not_asked.state);
  for (const double value : report.pairs.front().figures.values()) EXPECT_TRUE(std::isnan(value));
}

TEST(PairFigures, AreTheSameBitsOnAnyNumberOfThreads) {
  const auto optimizer = make_optimizer(plain());
  const auto figures_on = [&](int threads) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    const PairFigures figures = step_figures(seeded_pair(79, 5000, 3000, 9), plain());
    omp_set_num_threads(before);
    return std::vector<double>(figures.values().begin(), figures.values().end());
  };
  const std::vector<double> alone = figures_on(1);
  const std::vector<double> together = figures_on(3);
  for (std::size_t i = 0; i < kFigures; ++i) {
    EXPECT_TRUE(alone[i] == together[i] || std::isnan(alone[i])) << name_of(static_cast<Figure>(i));
  }
}

}  // namespace
}  // namespace lomu::testing

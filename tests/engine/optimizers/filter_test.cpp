// Spectral filters of LoRA-Muon: the step from its definition, and what stays true of it.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "engine/optimizers/lora_muon.h"
#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

OptimizerOptions filter_options(SpectralFilter filter, double parameter) {
  OptimizerOptions o;
  o.lr = 0.02;
  o.balance_every = 0;
  o.filter = filter;
  (filter == SpectralFilter::kDamped ? o.filter_tau : o.filter_power) = parameter;
  return o;
}

double kept(const OptimizerOptions& o, double s, double largest) {
  switch (o.filter) {
    case SpectralFilter::kSign: return 1.0;
    case SpectralFilter::kDamped: return s / std::sqrt(s * s + o.filter_tau * o.filter_tau * largest * largest);
    case SpectralFilter::kPower: return std::pow(s / largest, o.filter_power);
  }
  return 0.0;
}

/// -(eta / 2s) f(X) R^-T for X = momentum R^-1 and the QR of the partner.
Dense step_of(const Dense& momentum, const Dense& partner, double scale, const OptimizerOptions& o) {
  const Dense inverse_r = inverse(householder_qr(partner).r);
  const Dense x = momentum * inverse_r;
  const double largest = spectral_norm_of(x);
  return -o.lr / (2.0 * scale) * spectral_map(x, [&](double s) { return kept(o, s, largest); }) * inverse_r.transpose();
}

struct Shape {
  std::int64_t m, n, r;
};

TEST(SpectralFilter, FollowsItsDefinition) {
  std::mt19937_64 random(141);
  for (const auto& [m, n, r] : {Shape{1, 1, 1}, Shape{33, 17, 1}, Shape{40, 7, 7}, Shape{70, 1030, 12}}) {
    for (const OptimizerOptions& o :
         {filter_options(SpectralFilter::kDamped, 0.3), filter_options(SpectralFilter::kDamped, 1e-3),
          filter_options(SpectralFilter::kPower, 0.5), filter_options(SpectralFilter::kPower, 2.0)}) {
      OwnedPair pair = random_pair(random, m, n, r);
      pair.scale = 2.0;
      const ReferenceProblem problem = problem_of(pair, o);
      const auto mixed = [&](const std::vector<double>& old, const std::vector<double>& grad, std::int64_t rows) {
        return 0.9 * Dense(old.data(), rows, r) + 0.1 * Dense(grad.data(), rows, r);
      };
      const Dense p = left_of(pair), q = right_of(pair);
      const Dense dp = step_of(mixed(problem.before.momentum_left, problem.grad_left, m), q, pair.scale, o);
      const Dense dq = step_of(mixed(problem.before.momentum_right, problem.grad_right, n), p, pair.scale, o);
      const StepReport report = step_once(*make_optimizer(o), pair, {1, o.lr, {}});
      EXPECT_LT(step_error(left_of(pair), p + dp, p), 1e-6) << m << " " << n << " " << r;
      EXPECT_LT(step_error(right_of(pair), q + dq, q), 1e-6) << m << " " << n << " " << r;
      const double norm = std::hypot(dp.norm(), dq.norm());
      EXPECT_NEAR(std::sqrt(report.pairs[0].update_norm_squared), norm, 1e-8 * norm);
    }
  }
}

OwnedPair stepped(OwnedPair pair, const OptimizerOptions& o) {
  step_once(*make_optimizer(o), pair, {1, o.lr, {}});
  return pair;
}

TEST(SpectralFilter, WithNothingToDoIsThePlainSign) {
  std::mt19937_64 random(142);
  const OwnedPair pair = random_pair(random, 30, 20, 6);
  const OwnedPair sign = stepped(pair, filter_options(SpectralFilter::kSign, 0.0));
  EXPECT_EQ(stepped(pair, filter_options(SpectralFilter::kDamped, 0.0)).left, sign.left);
  EXPECT_EQ(stepped(pair, filter_options(SpectralFilter::kPower, 0.0)).left, sign.left);
  EXPECT_NE(stepped(pair, filter_options(SpectralFilter::kDamped, 0.1)).left, sign.left);
}

TEST(SpectralFilter, IgnoresTheSizeOfTheGradient) {
  std::mt19937_64 random(143);
  for (const OptimizerOptions& o :
       {filter_options(SpectralFilter::kDamped, 0.3), filter_options(SpectralFilter::kPower, 0.5)}) {
    OwnedPair pair = random_pair(random, 30, 20, 6);
    OwnedPair louder = pair;
    for (auto* values : {&louder.grad_left, &louder.grad_right, &louder.state}) {
      for (float& x : *values) x *= 1024.0f;  // exact
    }
    const OwnedPair a = stepped(pair, o), b = stepped(louder, o);
    EXPECT_LT((left_of(a) - left_of(b)).norm(), 1e-7 * left_of(a).norm());
    EXPECT_LT((right_of(a) - right_of(b)).norm(), 1e-7 * right_of(a).norm());
  }
}

TEST(SpectralFilter, NeverExceedsTheSpectralSizeOfTheSign) {
  std::mt19937_64 random(144);
  for (const OptimizerOptions& o :
       {filter_options(SpectralFilter::kDamped, 0.3), filter_options(SpectralFilter::kPower, 1.0)}) {
    const OwnedPair pair = random_pair(random, 30, 20, 6);
    const Dense step = (left_of(stepped(pair, o)) - left_of(pair)) * right_of(pair).transpose();
    const std::vector<double> sigma = singular_values(step);
    EXPECT_LE(sigma[0], o.lr / 2 * (1 + 1e-4));
    EXPECT_LT(sigma[5], 0.95 * sigma[0]);
    const double largest = o.filter == SpectralFilter::kPower ? 1.0 : 1.0 / std::hypot(1.0, o.filter_tau);
    EXPECT_NEAR(sigma[0], largest * o.lr / 2, 1e-4 * o.lr);
  }
}

TEST(SpectralFilter, WithoutSingularValuesIsRefused) {
  OptimizerOptions o = filter_options(SpectralFilter::kDamped, 0.3);
  o.orthogonalizer = Orthogonalizer::kNewtonSchulz;
  EXPECT_THROW(make_optimizer(o), UsageError);
  o = filter_options(SpectralFilter::kDamped, -0.1);
  EXPECT_THROW(make_optimizer(o), UsageError);
  o = filter_options(SpectralFilter::kPower, -1.0);
  EXPECT_THROW(make_optimizer(o), UsageError);
}

}  // namespace
}  // namespace lomu::testing

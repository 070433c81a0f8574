// Which optimizers care how a product is split between its factors. Two runs on one toy problem, from (P, Q) and from
// (P R, Q R^-T), have the same product at the start; where the step goes by the product alone they have it after every
// step.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/optimizers/optimizer.h"
#include "tests/engine/optimizers/all_optimizers.h"

namespace lomu::testing {
namespace {

enum class Gauge { kRotation, kRescaling, kAny };
constexpr std::int64_t kM = 30, kN = 22, kR = 4;

Dense gauge_matrix(std::mt19937_64& random, Gauge gauge) {
  switch (gauge) {
    case Gauge::kRotation: return random_orthonormal(random, kR, kR);
    case Gauge::kRescaling: return 9.0 * identity(kR);
    case Gauge::kAny: return 3.0 * random_with_condition(random, kR, kR, 8.0);
  }
  return identity(kR);
}

/// ||s P Q^T - target||^2 / 2 for a pair.
void set_toy_gradients(OwnedPair& pair, const Dense& target) {
  const Dense p = left_of(pair), q = right_of(pair);
  const Dense g = pair.scale * p * q.transpose() - target;
  set_gradients(pair, pair.scale * g * q, pair.scale * g.transpose() * p);
}

/// Largest difference of the two runs' products over eight steps, as a share of what they have moved.
double difference(const OptimizerOptions& options, Gauge gauge, bool zero_start) {
  std::mt19937_64 random(71);
  const Dense target = random_dense(random, kM, kN, 0.3);
  const Dense p = zero_start ? Dense(kM, kR) : random_dense(random, kM, kR, 0.3);
  const Dense q = random_dense(random, kN, kR, 0.3);
  const Dense r = gauge_matrix(random, gauge);
  const auto optimizer = make_optimizer(options);
  const auto pair_of = [&](const Dense& left, const Dense& right) {
    OwnedPair pair(kM, kN, kR);
    pair.scale = 2.0;
    set_left(pair, left);
    set_right(pair, right);
    pair.left_started_zero = zero_start;
    pair.give_state(*optimizer);
    return pair;
  };
  OwnedPair plain = pair_of(p, q);
  OwnedPair turned = pair_of(p * r, q * inverse(r).transpose());
  const Dense start = left_of(plain) * right_of(plain).transpose();
  double largest = 0.0;
  for (std::int64_t t = 1; t <= 8; ++t) {
    const double lr = options.lr * (1.0 - 0.1 * static_cast<double>(t));
    for (OwnedPair* pair : {&plain, &turned}) {
      set_toy_gradients(*pair, target);
      step_once(*optimizer, *pair, {t, lr, {}});
    }
    const Dense moved = left_of(plain) * right_of(plain).transpose();
    const Dense apart = left_of(turned) * right_of(turned).transpose() - moved;
    largest = std::max(largest, apart.norm() / (moved - start).norm());
  }
  return largest;
}

OptimizerOptions toy_options(OptimizerKind kind) {
  OptimizerOptions o;
  o.name = kind;
  o.lr = 0.05;
  o.weight_decay = 0.2;
  o.balance_every = 3;
  return o;
}

// Factors are rounded to 6e-8 of their size after every step; in the other gauge, whose condition is 8, to 5e-7, and a
// step amplifies what is there by at most its relative size. AdamW-like moments divide by themselves: the same order.
constexpr double kSame = 2e-5;
constexpr double kVisiblyDifferent = 1e-2;

TEST(Gauge, SpectralAndRiteStepsGoByTheProductAlone) {
  for (const auto kind : {OptimizerKind::kLoraMuon, OptimizerKind::kLoraRiteCore, OptimizerKind::kLoraRite}) {
    for (const Gauge gauge : {Gauge::kRotation, Gauge::kRescaling, Gauge::kAny}) {
      for (const bool zero_start : {false, true}) {
        OptimizerOptions o = toy_options(kind);
        if (kind == OptimizerKind::kLoraRite) {
          o.lr = 0.005;
          o.eps = 1e-30;
        }
        EXPECT_LT(difference(o, gauge, zero_start), kSame)
            << static_cast<int>(kind) << " gauge " << static_cast<int>(gauge) << " zero " << zero_start;
      }
    }
  }
}

TEST(Gauge, SpectralFiltersKeepTheInvariance) {
  OptimizerOptions o = toy_options(OptimizerKind::kLoraMuon);
  for (const SpectralFilter filter : {SpectralFilter::kDamped, SpectralFilter::kPower}) {
    o.filter = filter;
    o.filter_tau = 0.3;
    EXPECT_LT(difference(o, Gauge::kAny, false), kSame);
    EXPECT_LT(difference(o, Gauge::kAny, true), kSame);
  }
}

TEST(Gauge, StepsOfEachFactorByItselfDependOnTheSplit) {
  for (const auto kind : {OptimizerKind::kAdamW, OptimizerKind::kLoraPlus, OptimizerKind::kScaledAdamW,
                          OptimizerKind::kMuonFactors, OptimizerKind::kSpectron}) {
    for (const Gauge gauge : {Gauge::kRescaling, Gauge::kAny}) {
      EXPECT_GT(difference(toy_options(kind), gauge, false), kVisiblyDifferent)
          << static_cast<int>(kind) << " gauge " << static_cast<int>(gauge);
    }
  }
}

TEST(Gauge, SignsOfFactorsAreInvariantUnderRotationsAlone) {
  for (const auto kind : {OptimizerKind::kMuonFactors, OptimizerKind::kSpectron}) {
    EXPECT_LT(difference(toy_options(kind), Gauge::kRotation, false), kSame) << static_cast<int>(kind);
  }
  for (const auto kind : {OptimizerKind::kAdamW, OptimizerKind::kLoraPlus, OptimizerKind::kScaledAdamW}) {
    EXPECT_GT(difference(toy_options(kind), Gauge::kRotation, false), kVisiblyDifferent) << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace lomu::testing

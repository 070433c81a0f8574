// LoRA-RITE against its definition with explicit orthonormal bases (Householder QR, no Gram), and its core against
// LoRA-Muon.
#include "engine/optimizers/lora_rite.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

struct Shape {
  std::int64_t m, n, r;
};
constexpr std::array<Shape, 6> kShapes{{{1, 1, 1}, {33, 17, 1}, {40, 7, 7}, {31, 1100, 16}, {5, 3, 2}, {64, 48, 8}}};

/// Moments of one side as the paper keeps them, with the basis they are in.
struct PlainSide {
  Dense basis, m, v;
  double escaped = 0.0;
  double c = 0.0;

  void carry(const Dense& to) {
    const Dense t = to.transpose() * basis;
    const std::vector<double> before = singular_values(v);
    v = t * v * t.transpose();
    const std::vector<double> after = singular_values(v);
    double lost = 0.0;
    for (std::size_t i = 0; i < before.size(); ++i) lost = std::max(lost, before[i] - after[i]);
    escaped += lost;
    m = m * t.transpose();
    basis = to;
  }
};

/// The partner with what damping puts under it.
Dense damped(const Dense& partner, const Dense& own, double c) {
  return c > 0.0 ? stacked(partner, c * own * inverse(own.transpose() * own)) : partner;
}

double corrected(double beta, std::int64_t t) {
  const auto time = static_cast<double>(t);
  return beta * (1 - std::pow(beta, time - 1)) / (1 - std::pow(beta, time));
}

/// The step of `own`, without decay; `grad` is the gradient of the factor.
Dense plain_step(PlainSide& side, const Dense& own, const Dense& partner, const Dense& grad, double c, double lr,
                 double scale, std::int64_t t, const OptimizerOptions& o) {
  const Qr qr = householder_qr(damped(partner, own, c));
  if (t == 1) {
    side = {qr.q, Dense(own.rows(), own.columns()), Dense(own.columns(), own.columns()), 0.0, c};
  } else {
    if (side.c != c) side.carry(householder_qr(damped(partner, own, side.c)).q);
    side.carry(qr.q);
    side.c = c;
  }
  const double b1 = corrected(o.beta1, t), b2 = corrected(o.beta2, t);
  const Dense g = 1.0 / scale * grad * inverse(qr.r);
  side.escaped *= b2;
  side.v = b2 * side.v + (1 - b2) / static_cast<double>(own.rows()) * (g.transpose() * g);
  const double escaped = side.escaped;
  // V is positive semidefinite: its singular values are its eigenvalues, and those under 1e-12 of the largest are zero.
  Svd parts = svd(side.v);
  for (double& lambda : parts.values) {
    lambda = lambda > 1e-12 * parts.values.front() ? 1.0 / (std::sqrt(lambda + escaped) + o.eps) : 0.0;
  }
  side.m = b1 * side.m + (1 - b1) * g * (parts.v * diagonal(parts.values) * parts.v.transpose());
  return -lr / scale * side.m * inverse(qr.r).transpose();
}

OptimizerOptions rite_options() {
  OptimizerOptions o;
  o.name = OptimizerKind::kLoraRite;
  o.lr = 2e-3;
  o.weight_decay = 0.1;
  o.beta2 = 0.95;  // so that later steps depend on what is carried over
  return o;
}

Dense rounded(const Dense& x) {
  return x.map([](double value) { return static_cast<float>(value); });
}

void follow(const Shape& shape, bool zero_start, bool changing_lr) {
  const auto [m, n, r] = shape;
  std::mt19937_64 random(static_cast<std::uint64_t>(101 + m + n + r));
  const OptimizerOptions o = rite_options();
  const auto optimizer = make_optimizer(o);
  OwnedPair pair = random_pair(random, m, n, r);
  pair.scale = 2.0;
  if (zero_start) {
    set_left(pair, Dense(m, r));
    pair.left_started_zero = true;
  }
  pair.give_state(*optimizer);
  PlainSide left, right;
  for (std::int64_t t = 1; t <= 6; ++t) {
    const double lr = changing_lr ? o.lr / static_cast<double>(t) : o.lr;
    const Dense gl = rounded(random_dense(random, m, r, 1e-2));
    // Where P is zero, so is the gradient of Q.
    const Dense gr = zero_start && t == 1 ? Dense(n, r) : rounded(random_dense(random, n, r, 1e-2));
    set_gradients(pair, gl, gr);
    const Dense p = left_of(pair), q = right_of(pair);
    const double c =
        zero_start ? static_cast<float>(lr * std::sqrt(static_cast<double>(n)) / (*o.damping * pair.scale)) : 0.0;
    const Dense dp = plain_step(left, p, q, gl, 0.0, lr, pair.scale, t, o);
    const Dense dq = plain_step(right, q, p, gr, c, lr, pair.scale, t, o);
    const StepReport report = step_once(*optimizer, pair, {t, lr, {}});
    const double keep = 1 - lr * o.weight_decay;
    // Momentum, transports and roots of second moments are float32; a preconditioner of condition 30 amplifies that.
    EXPECT_LT(step_error(left_of(pair), keep * p + dp, p), 1e-5) << m << " " << n << " " << r << " step " << t;
    EXPECT_LT(step_error(right_of(pair), keep * q + dq, q), 1e-5) << m << " " << n << " " << r << " step " << t;
    EXPECT_NEAR(std::sqrt(report.pairs[0].update_norm_squared), std::hypot(dp.norm(), dq.norm()),
                1e-4 * std::hypot(dp.norm(), dq.norm()));
  }
}

TEST(LoraRite, FollowsItsDefinition) {
  for (const Shape& shape : kShapes) follow(shape, false, false);
}

TEST(LoraRite, FollowsItsDefinitionFromAZeroFactor) {
  for (const Shape& shape : kShapes) follow(shape, true, false);
}

TEST(LoraRite, CarriesItsStateOverAChangeOfDamping) {
  for (const Shape& shape : {Shape{33, 17, 1}, Shape{40, 7, 7}, Shape{64, 48, 8}}) follow(shape, true, true);
}

TEST(LoraRite, EscapedMassIsWhatATurnOfTheBasisLoses) {
  // One large step turns Q away from its axis: of P's second moment, the share of the old axis in the new one stays in
  // V and the rest is escaped mass.
  OwnedPair pair(4, 6, 1);
  pair.left = {1.0f, 0.0f, 0.0f, 0.0f};
  pair.right = {1.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  pair.grad_left = {2.0f, 0.0f, 0.0f, 0.0f};
  pair.grad_right = {0.0f, 1.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  OptimizerOptions o = rite_options();
  o.lr = 0.5;
  o.weight_decay = 0.0;
  const auto optimizer = make_optimizer(o);
  pair.give_state(*optimizer);
  step_once(*optimizer, pair, {1, o.lr, {}});
  const double along = pair.right[0], across = pair.right[1];
  const double share = along * along / (along * along + across * across);
  EXPECT_LT(share, 0.5);
  const PairView view = pair.view();
  const std::span<const StateSlot> slots = optimizer->state_slots(view.shape());
  const double root = state_slot(view, slots, 2)[0];
  EXPECT_NEAR(root * root, share, 1e-6);  // V was 1, the mean square of (2, 0, 0, 0)
  EXPECT_NEAR(state_slot(view, slots, 6)[0], 1.0 - share, 1e-6);
}

TEST(LoraRite, ZeroGradientsOnlyDecay) {
  std::mt19937_64 random(111);
  OwnedPair pair = random_pair(random, 24, 20, 4);
  set_gradients(pair, Dense(24, 4), Dense(20, 4));
  const OptimizerOptions o = rite_options();
  const auto optimizer = make_optimizer(o);
  pair.give_state(*optimizer);
  const Dense left = left_of(pair);
  step_once(*optimizer, pair, {1, o.lr, {}});
  EXPECT_LT((left_of(pair) - (1 - o.lr * o.weight_decay) * left).norm(), 1e-7 * left.norm());
}

TEST(LoraRite, TheRelativeStepOfAFactorWhosePartnerStartedAtZeroIsAboutRho) {
  std::mt19937_64 random(112);
  OwnedPair pair(48, 40, 4);
  pair.left_started_zero = true;
  set_right(pair, random_dense(random, 40, 4, 0.2));
  const Dense target = random_dense(random, 48, 40, 0.1);
  OptimizerOptions o = rite_options();
  const auto optimizer = make_optimizer(o);
  pair.give_state(*optimizer);
  for (std::int64_t t = 1; t <= 30; ++t) {
    const Dense p = left_of(pair), q = right_of(pair);
    const Dense g = p * q.transpose() - target;
    set_gradients(pair, g * q, g.transpose() * p);
    const StepReport report = step_once(*optimizer, pair, {t, o.lr, {}});
    EXPECT_LT(report.pairs[0].relative_step_right, 2 * *o.damping) << t;
  }
}

TEST(LoraRite, TheScaleOfTheAdapterChangesNothingInTheProduct) {
  std::mt19937_64 random(113);
  const Dense p = random_dense(random, 24, 3), q = random_dense(random, 20, 3);
  const Dense g = random_dense(random, 24, 20);  // of the gradient of W
  const OptimizerOptions o = rite_options();
  const auto product_of = [&](double scale) {
    OwnedPair pair(24, 20, 3);
    pair.scale = scale;
    set_left(pair, 1.0 / scale * p);
    set_right(pair, q);
    const auto optimizer = make_optimizer(o);
    pair.give_state(*optimizer);
    for (std::int64_t t = 1; t <= 3; ++t) {
      set_gradients(pair, scale * g * right_of(pair), scale * g.transpose() * left_of(pair));
      step_once(*optimizer, pair, {t, o.lr, {}});
    }
    return scale * left_of(pair) * right_of(pair).transpose();
  };
  const Dense one = product_of(1.0);
  EXPECT_LT((product_of(8.0) - one).norm(), 1e-4 * (one - p * q.transpose()).norm());
}

TEST(LoraRiteCore, IsLoraMuonsStep) {
  for (const Shape& shape : kShapes) {
    const auto [m, n, r] = shape;
    for (const bool zero_start : {false, true}) {
      std::mt19937_64 random(static_cast<std::uint64_t>(121 + m + n + r));
      OptimizerOptions o;
      o.lr = 0.05;
      o.weight_decay = 0.1;
      o.nesterov = zero_start;
      o.balance_every = 0;
      OwnedPair pair = random_pair(random, m, n, r);
      pair.scale = 0.5;
      if (zero_start) set_left(pair, Dense(m, r));
      pair.left_started_zero = zero_start;
      const auto muon = make_optimizer(o);
      o.name = OptimizerKind::kLoraRiteCore;
      const auto core = make_optimizer(o);
      EXPECT_EQ(muon->state_size(pair.view().shape()), core->state_size(pair.view().shape()));
      pair.give_state(*muon);
      for (std::int64_t t = 1; t <= 5; ++t) {
        set_gradients(pair, random_dense(random, m, r, 1e-2),
                      zero_start && t == 1 ? Dense(n, r) : random_dense(random, n, r, 1e-2));
        OwnedPair other = pair;
        const OwnedPair before = pair;
        const StepReport a = step_once(*muon, pair, {t, o.lr, {}});
        const StepReport b = step_once(*core, other, {t, o.lr, {}});
        EXPECT_LT(step_error(left_of(other), left_of(pair), left_of(before)), 1e-6) << m << " " << n << " " << r;
        EXPECT_LT(step_error(right_of(other), right_of(pair), right_of(before)), 1e-6) << m << " " << n << " " << r;
        for (std::size_t i = 0; i < pair.state.size(); ++i) EXPECT_NEAR(other.state[i], pair.state[i], 1e-9);
        EXPECT_NEAR(a.pairs[0].update_norm_squared, b.pairs[0].update_norm_squared,
                    1e-6 * a.pairs[0].update_norm_squared);
      }
    }
  }
}

TEST(LoraRiteCore, AFactorWithoutFullRankIsNamed) {
  std::mt19937_64 random(131);
  OwnedPair pair = random_pair(random, 12, 10, 3);
  set_right(pair, random_dense(random, 10, 1) * random_dense(random, 1, 3).map([](double) { return 1.0; }));
  OptimizerOptions o;
  o.name = OptimizerKind::kLoraRiteCore;
  EXPECT_THROW(step_once(*make_optimizer(o), pair, {1, 0.02, {}}), NumericError);
}

}  // namespace
}  // namespace lomu::testing

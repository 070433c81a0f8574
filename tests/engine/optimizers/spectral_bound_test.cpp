// The bound on a product against the dense product and its singular values by Jacobi rotations.
#include "engine/optimizers/spectral_bound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/error.h"
#include "tests/engine/optimizers/dense.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu {
namespace {

using testing::Dense;
using testing::OwnedPair;

constexpr double kEpsilon = 0x1p-24;

Dense product_of(const OwnedPair& pair) {
  return pair.scale * (Dense(pair.left.data(), pair.m, pair.r) * Dense(pair.right.data(), pair.r, pair.n));
}

double clip_of(double x, double b, SpectralClip clip) {
  if (clip == SpectralClip::kHard) return std::min(x, b);
  return x <= b / 2 ? x : b / 2 * (1 + std::tanh((x - b / 2) / (b / 2)));
}

/// Rounding a factor's entries to float32 moves the product by at most eps (||P'|| ||Q|| + ||P|| ||Q'||); twice that
/// covers the double-precision work too.
double allowed(const OwnedPair& pair) {
  const double left = Dense(pair.left.data(), pair.m, pair.r).norm();
  const double right = Dense(pair.right.data(), pair.r, pair.n).norm();
  return 4 * kEpsilon * pair.scale * left * right;
}

void fill(std::mt19937_64& random, std::vector<float>& values, double size) {
  std::normal_distribution<double> normal(0, size);
  for (float& x : values) x = static_cast<float>(normal(random));
}

struct Shape {
  std::int64_t m, n, r;
  double gauge = 1;
};

TEST(SpectralBound, ReplacesTheSingularValuesOfTheProductAndNothingElse) {
  std::mt19937_64 random(1);
  for (const auto& [m, n, r, gauge] :
       {Shape{9, 7, 1}, {16, 16, 16}, {33, 20, 5}, {20, 33, 5}, {64, 48, 16, 100}, {5, 130, 3, 0.01}}) {
    for (const SpectralClip clip : {SpectralClip::kHard, SpectralClip::kSoft}) {
      for (const double share : {0.2, 0.9}) {  // of the largest singular value
        SCOPED_TRACE(::testing::Message() << m << " x " << n << ", rank " << r << ", share " << share);
        OwnedPair pair(m, n, r);
        pair.scale = 1.5;
        fill(random, pair.left, 0.3 * gauge);
        fill(random, pair.right, 0.3 / gauge);
        const Dense before = product_of(pair);
        const double b = share * testing::spectral_norm_of(before);
        const ClippedProduct found = clip_product(pair.view(), b, clip);
        EXPECT_NEAR(found.largest, testing::spectral_norm_of(before), 1e-9 * found.largest);
        EXPECT_GE(found.directions, 1);
        const Dense expected = testing::spectral_map(before, [&](double x) { return clip_of(x, b, clip); });
        EXPECT_LE((product_of(pair) - expected).norm(), allowed(pair));
        EXPECT_LE(testing::spectral_norm_of(product_of(pair)), b + allowed(pair));
      }
    }
  }
}

TEST(SpectralBound, LeavesAProductBelowItBitForBit) {
  std::mt19937_64 random(2);
  OwnedPair pair(20, 30, 4);
  fill(random, pair.left, 0.1);
  fill(random, pair.right, 0.1);
  const std::vector<float> left = pair.left, right = pair.right;
  const double largest = testing::spectral_norm_of(product_of(pair));
  EXPECT_EQ(clip_product(pair.view(), 1.001 * largest, SpectralClip::kHard).directions, 0);
  EXPECT_EQ(clip_product(pair.view(), 2.001 * largest, SpectralClip::kSoft).directions, 0);
  EXPECT_EQ(pair.left, left);
  EXPECT_EQ(pair.right, right);
}

TEST(SpectralBound, TakesFactorsThatLackDirections) {
  std::mt19937_64 random(3);
  OwnedPair pair(12, 10, 4);
  fill(random, pair.left, 1);
  fill(random, pair.right, 1);
  for (std::int64_t i = 0; i < pair.m; ++i) {
    pair.left[static_cast<std::size_t>(i * 4 + 1)] = pair.left[static_cast<std::size_t>(i * 4)];  // two equal columns
    pair.left[static_cast<std::size_t>(i * 4 + 3)] = 0;
  }
  const Dense before = product_of(pair);
  const double b = 0.3 * testing::spectral_norm_of(before);
  clip_product(pair.view(), b, SpectralClip::kHard);
  const Dense expected = testing::spectral_map(before, [&](double x) { return std::min(x, b); });
  EXPECT_LE((product_of(pair) - expected).norm(), allowed(pair));

  OwnedPair zero(12, 10, 4);
  fill(random, zero.right, 1);
  EXPECT_EQ(clip_product(zero.view(), 1e-3, SpectralClip::kHard).directions, 0);
}

TEST(SpectralBound, HoldsAfterEveryStepOfAnyOptimizer) {
  std::mt19937_64 random(4);
  for (const OptimizerKind name : {OptimizerKind::kLoraMuon, OptimizerKind::kAdamW, OptimizerKind::kSpectron}) {
    OptimizerOptions options;
    options.name = name;
    options.lr = 0.3;
    options.spectral_bound = 0.5;
    const auto bounded = make_optimizer(options);
    options.spectral_bound.reset();
    const auto free = make_optimizer(options);
    OwnedPair pair(24, 18, 6);
    fill(random, pair.left, 0.1);
    fill(random, pair.right, 0.1);
    pair.state.assign(static_cast<std::size_t>(bounded->state_size(pair.view().shape())), 0.0f);
    EXPECT_EQ(bounded->state_size(pair.view().shape()), free->state_size(pair.view().shape()));
    OwnedPair other = pair;
    double largest_free = 0;
    for (std::int64_t step = 1; step <= 12; ++step) {
      fill(random, pair.grad_left, 1);
      fill(random, pair.grad_right, 1);
      other.grad_left = pair.grad_left;
      other.grad_right = pair.grad_right;
      StepReport report;
      const PairView views[] = {pair.view()};
      const PairView others[] = {other.view()};
      bounded->step(views, {step, options.lr}, report);
      free->step(others, {step, options.lr}, report);
      EXPECT_LE(testing::spectral_norm_of(product_of(pair)), 0.5 + allowed(pair)) << step;
      largest_free = std::max(largest_free, testing::spectral_norm_of(product_of(other)));
    }
    EXPECT_GT(largest_free, 0.6);  // without it the steps would have gone beyond
  }
}

TEST(SpectralBound, RefusesABoundThatIsNone) {
  OptimizerOptions options;
  for (const double b : {0.0, -1.0, std::nan("")}) {
    options.spectral_bound = b;
    EXPECT_THROW(make_optimizer(options), UsageError) << b;
  }
}

}  // namespace
}  // namespace lomu

// The spectrum of an adapter's site against a dense singular value decomposition.
#include "engine/optimizers/telemetry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/error.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

void expect_dense_spectrum(const OwnedPair& pair) {
  const std::vector<double> got = product_spectrum(pair.left, pair.right, pair.m, pair.n, pair.r, pair.scale);
  const std::vector<double> expected = singular_values(pair.scale * left_of(pair) * right_of(pair).transpose());
  ASSERT_EQ(got.size(), static_cast<std::size_t>(std::min({pair.m, pair.n, pair.r})));
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], expected[i], 1e-7 * expected[0]) << i;
  }
}

TEST(ProductSpectrum, IsThatOfTheDenseProduct) {
  std::mt19937_64 random(91);
  for (const auto& [m, n, r] :
       {std::array<std::int64_t, 3>{60, 50, 8}, {50, 60, 1}, {33, 40, 16}, {6, 40, 16}, {100, 90, 64}}) {
    OwnedPair pair = random_pair(random, m, n, r);
    pair.scale = 2.5;
    expect_dense_spectrum(pair);
  }
}

TEST(ProductSpectrum, OfASingularFactorHasZeros) {
  std::mt19937_64 random(92);
  OwnedPair pair = random_pair(random, 60, 50, 6);
  Dense p = left_of(pair);
  for (std::int64_t i = 0; i < p.rows(); ++i) p(i, 2) = p(i, 1);
  set_left(pair, p);
  expect_dense_spectrum(pair);
}

TEST(ProductSpectrum, OfAFreshAdapterIsZero) {
  std::mt19937_64 random(93);
  OwnedPair pair = random_pair(random, 60, 50, 6);
  std::fill(pair.left.begin(), pair.left.end(), 0.0f);
  const auto spectrum = product_spectrum(pair.left, pair.right, 60, 50, 6, 1.0);
  for (const double sigma : spectrum) EXPECT_EQ(sigma, 0.0);
  EXPECT_EQ(stable_rank(spectrum), 0.0);
}

TEST(ProductSpectrum, RefusesWhatDoesNotFit) {
  std::vector<float> x(6, 1.0f);
  EXPECT_THROW(product_spectrum(x, x, 3, 2, 2, 1.0), UsageError);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(product_spectrum(x, x, 3, 3, 2, 1.0), NumericError);
}

TEST(StableRank, CountsDirections) {
  EXPECT_DOUBLE_EQ(stable_rank(std::vector<double>{2.0, 2.0, 1.0}), 2.25);
}

}  // namespace
}  // namespace lomu::testing

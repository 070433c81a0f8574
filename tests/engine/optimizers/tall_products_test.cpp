// The hand-blocked products against dense ones, at sizes around every block boundary.
#include "engine/optimizers/tall_products.h"

#include <gtest/gtest.h>

#include "engine/optimizers/fixed_order_sum.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

struct Factor {
  FactorShape shape;
  std::vector<float> values;
  Dense tall;  ///< [length, rank] whatever the layout
};

Factor random_factor(std::mt19937_64& random, bool wide, std::int64_t length, std::int64_t rank) {
  Factor f{{wide, length, rank}, std::vector<float>(static_cast<std::size_t>(length * rank)), {}};
  const Dense rows = random_dense(random, wide ? rank : length, wide ? length : rank);
  f.values.assign(rows.values().begin(), rows.values().end());
  const Dense rounded(f.values.data(), rows.rows(), rows.columns());
  f.tall = wide ? rounded.transpose() : rounded;
  return f;
}

class TallProducts : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(TallProducts, AreEquivalentToDenseOnes) {
  const std::int64_t rank = GetParam();
  std::mt19937_64 random(static_cast<std::uint64_t>(rank));
  for (const bool wide : {false, true}) {
    for (const std::int64_t length : {1, 7, 63, 64, 65, 257, 1023, 1024, 1025, 2100}) {
      const Factor f = random_factor(random, wide, length, rank);
      const SmallMatrix gram = gram_of(f.shape, f.values.data());
      const Dense expected = f.tall.transpose() * f.tall;
      const Dense got(gram.values().data(), rank, rank);
      ASSERT_LT((got - expected).norm(), 1e-14 * expected.norm()) << wide << " " << length;
      ASSERT_EQ(got, got.transpose());

      const Dense half = random_dense(random, rank, rank);
      const Dense k = half + half.transpose();
      SmallMatrix symmetric(rank);
      std::copy(k.values().begin(), k.values().end(), symmetric.values().begin());
      std::vector<double> product(f.values.size(), -1.0);
      multiply(
          f.shape, symmetric,
          [&](const lomu::Run& run, double* panel) {
            std::copy_n(f.values.data() + run.factor, run.count, panel + run.panel);
          },
          [&](const lomu::Run& run, const double* panel) {
            std::copy_n(panel + run.panel, run.count, product.data() + run.factor);
          });
      const Dense expected_product = f.tall * k;
      const Dense rows = Dense((product).data(), wide ? rank : length, wide ? length : rank);
      ASSERT_LT(((wide ? rows.transpose() : rows) - expected_product).norm(), 1e-13 * expected_product.norm())
          << wide << " " << length;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, TallProducts, ::testing::Values(1, 3, 8, 12, 16, 24, 33, 64, 100));

TEST(FixedOrderSum, AddsEverySquareOnce) {
  for (const std::size_t count : {0u, 1u, 31u, 32u, 33u, 100u}) {
    std::vector<float> x(count);
    double expected = 0.0;
    for (std::size_t i = 0; i < count; ++i) {
      x[i] = static_cast<float>(i) + 0.5f;
      expected += (static_cast<double>(i) + 0.5) * (static_cast<double>(i) + 0.5);
    }
    EXPECT_DOUBLE_EQ(sum_of_squares(x), expected);
  }
}

TEST(FixedOrderSum, DoesNotDependOnWhereTheArrayLies) {
  std::mt19937_64 random(81);
  std::normal_distribution<float> normal;
  std::vector<float> x(1100);
  for (float& v : x) v = normal(random);
  const std::vector<float> copy(x.begin() + 3, x.begin() + 1003);
  EXPECT_EQ(sum_of_squares({x.data() + 3, 1000}), sum_of_squares(copy));
}

}  // namespace
}  // namespace lomu::testing

#include "kernels/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace lomu {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Known answers published with the paper's reference library (Random123, kat_vectors, "philox 4 x 32 10").
TEST(Philox, GivesThePublishedKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, IsAConstantExpression) {
  constexpr Philox random(7, Purpose::kTest);
  static_assert(random.words(1, 2) == random.words(1, 2));
  static_assert(random.words(1, 2) != random.words(2, 1));
}

TEST(Philox, SeedPurposeStreamAndIndexEachChangeTheNumbers) {
  std::set<Words> seen;
  for (std::uint64_t seed : {0ull, 1ull, 1ull << 32, ~0ull}) {
    for (Purpose purpose : {Purpose::kTest, Purpose::kDropout, Purpose::kShuffleExamples}) {
      for (std::uint64_t stream : {0ull, 1ull, 1ull << 32}) {
        for (std::uint64_t index : {0ull, 1ull, 1ull << 32}) seen.insert(Philox(seed, purpose).words(stream, index));
      }
    }
  }
  EXPECT_EQ(seen.size(), 4u * 3 * 3 * 3);
}

TEST(Philox, UnitFloatsStayBelowOne) {
  EXPECT_EQ(unit_float(0), 0.0f);
  EXPECT_LT(unit_float(0xffffffff), 1.0f);
}

TEST(Philox, BoundedCoversItsRangeEvenly) {
  EXPECT_EQ(bounded(0, 10), 0u);
  EXPECT_EQ(bounded(~0ull, 10), 9u);
  const Philox random(3, Purpose::kTest);
  std::array<int, 7> counts{};
  for (std::uint64_t i = 0; i < 7000; ++i) ++counts[bounded(random.bits(0, i), 7)];
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);  // five standard deviations
}

TEST(Philox, NormalsHaveMeanZeroAndVarianceOne) {
  const Philox random(11, Purpose::kTest);
  double sum = 0;
  double squares = 0;
  double fourth = 0;
  constexpr int kDraws = 100000;
  for (std::uint64_t i = 0; i < kDraws / 4; ++i) {
    for (const float x : random.normals(0, i)) {
      const double square = static_cast<double>(x) * x;
      sum += x;
      squares += square;
      fourth += square * square;
    }
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.016);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.023);
  EXPECT_NEAR(fourth / kDraws, 3.0, 0.16);
}

}  // namespace
}  // namespace lomu

// Who owns which pair.
#include "comm/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "kernels/error.h"

namespace lomu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Layout, PairsFollowEachOtherWithoutGaps) {
  std::vector<PairShape> pairs{{"a", 3, 5, 2}, {"b", 7, 1, 4}};
  EXPECT_EQ(lay_out(pairs), 16u + 32u);
  EXPECT_EQ(pairs[0].offset, 0u);
  EXPECT_EQ(pairs[1].offset, 16u);
}

TEST(Layout, EmptyPairsAndOverflowAreRefusedByName) {
  const std::size_t huge = static_cast<std::size_t>(-1) / 2;
  for (const PairShape& bad :
       {PairShape{"bad", 0, 5, 2}, PairShape{"bad", huge, huge, 8}, PairShape{"bad", huge, 2, 1}}) {
    std::vector<PairShape> pairs{{"fine", 3, 5, 2}, bad};
    try {
      lay_out(pairs);
      FAIL();
    } catch (const UsageError& error) {
      EXPECT_EQ(error.where(), "bad");
    }
  }
}

TEST(ShardByPair, GivesTheLargestFirstToTheLeastLoaded) {
  std::vector<PairShape> pairs{
      {"small", 10, 10, 1}, {"large", 100, 100, 1}, {"middle", 50, 50, 1}, {"middle2", 50, 50, 1}};
  lay_out(pairs);
  const ShardPlan plan = shard_by_pair(pairs, 2);
  EXPECT_THAT(plan.owner, ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(plan.pairs[0], ElementsAre(0, 1));
  EXPECT_THAT(plan.segments[0], ElementsAre(Segment{0, 220}));
  EXPECT_THAT(plan.segments[1], ElementsAre(Segment{220, 200}));
}

TEST(ShardByPair, BreaksTiesByOrderAndRank) {
  std::vector<PairShape> pairs(5, PairShape{"p", 4, 4, 2});
  lay_out(pairs);
  EXPECT_THAT(shard_by_pair(pairs, 3).owner, ElementsAre(0, 1, 2, 0, 1));
}

TEST(ShardByPair, RanksBeyondThePairsOwnNothing) {
  std::vector<PairShape> pairs{{"only", 4, 4, 2}};
  lay_out(pairs);
  const ShardPlan plan = shard_by_pair(pairs, 3);
  EXPECT_THAT(plan.owner, ElementsAre(0));
  EXPECT_THAT(plan.segments[1], IsEmpty());
  EXPECT_THAT(plan.segments[2], IsEmpty());
  EXPECT_THROW(shard_by_pair(pairs, 0), UsageError);
}

TEST(ShardByPair, CoversTheBufferOnceAndBalancesAModelWell) {
  std::vector<PairShape> pairs;  // the shapes of a 135M Llama: 30 layers, hidden 576, kv 192, mlp 1536
  for (int layer = 0; layer < 30; ++layer) {
    for (const auto& [m, n] : std::vector<std::pair<std::size_t, std::size_t>>{
             {576, 576}, {192, 576}, {192, 576}, {576, 576}, {1536, 576}, {1536, 576}, {576, 1536}}) {
      pairs.push_back({"layer", m, n, 16});
    }
  }
  const std::size_t length = lay_out(pairs);
  EXPECT_EQ(length, 4'884'480u);
  for (const int world : {1, 2, 3, 4, 7, 8, 64, 300}) {
    const ShardPlan plan = shard_by_pair(pairs, world);
    std::vector<Segment> all;
    std::size_t most = 0;
    for (const auto& segments : plan.segments) {
      std::size_t floats = 0;
      for (const Segment& segment : segments) floats += segment.count;
      most = std::max(most, floats);
      all.insert(all.end(), segments.begin(), segments.end());
    }
    std::sort(all.begin(), all.end(), [](const Segment& a, const Segment& b) { return a.begin < b.begin; });
    std::size_t at = 0;
    for (const Segment& segment : all) {
      EXPECT_EQ(segment.begin, at);
      at += segment.count;
    }
    EXPECT_EQ(at, length);
    if (world <= 8) {
      EXPECT_LT(static_cast<double>(most), 1.02 * static_cast<double>(length) / world);
    }
  }
}

}  // namespace
}  // namespace lomu

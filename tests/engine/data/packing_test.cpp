#include "engine/data/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/error.h"
#include "kernels/philox.h"

namespace lomu {
namespace {

// Lengths as chat data has them: a body of short examples with a long tail.
std::vector<std::uint32_t> chat_lengths(std::size_t n, std::uint32_t longest) {
  const Philox random(5, Purpose::kTest);
  std::vector<std::uint32_t> lengths(n);
  for (std::size_t i = 0; i < n; ++i) {
    const float z = random.normals(0, i)[0];
    lengths[i] = std::clamp(static_cast<std::uint32_t>(160.0f * std::exp(0.8f * z)), 8u, longest);
  }
  return lengths;
}

std::uint64_t digest(const EpochPlan& plan) {
  std::uint64_t h = 0;
  for (std::size_t m = 0; m < plan.size(); ++m) {
    for (const std::uint32_t e : plan[m]) h = mix64(h ^ (e + 1));
    h = mix64(h ^ 0xffffffffull);
  }
  return h;
}

void expect_partition(const EpochPlan& plan, std::span<const std::uint32_t> lengths, std::uint32_t capacity) {
  std::vector<int> seen(lengths.size(), 0);
  for (std::size_t m = 0; m < plan.size(); ++m) {
    ASSERT_FALSE(plan[m].empty());
    std::uint64_t tokens = 0;
    for (const std::uint32_t e : plan[m]) {
      ASSERT_LT(e, lengths.size());
      ++seen[e];
      tokens += lengths[e];
    }
    ASSERT_LE(tokens, capacity) << "micro-batch " << m;
  }
  EXPECT_TRUE(std::ranges::all_of(seen, [](int count) { return count == 1; }));
}

TEST(Packing, EveryExampleOnceAndNeverOverCapacity) {
  for (const std::size_t n : {0u, 1u, 2u, 17u, 3000u}) {
    const auto lengths = chat_lengths(n, 512);
    for (const std::uint32_t capacity : {512u, 2048u, 100000u}) {
      for (const bool shuffle : {false, true}) {
        for (const bool packing : {false, true}) {
          const PackOptions options{
              .seed = 9, .epoch = 2, .micro_batch_tokens = capacity, .shuffle = shuffle, .packing = packing};
          expect_partition(make_epoch(lengths, options), lengths, capacity);
        }
      }
    }
  }
}

TEST(Packing, FillsMicroBatches) {
  const auto lengths = chat_lengths(20000, 2048);
  const EpochPlan packed = make_epoch(lengths, {.seed = 1, .micro_batch_tokens = 2048});
  EXPECT_GT(fill_ratio(packed, lengths, 2048), 0.98);
  const EpochPlan grouped = make_epoch(lengths, {.seed = 1, .micro_batch_tokens = 2048, .packing = false});
  EXPECT_LT(fill_ratio(grouped, lengths, 2048), 0.95);
}

TEST(Packing, SamePlanOnEveryMachine) {
  // The digest is a promise to saved runs: a changed plan would make a resumed run see other data.
  const auto lengths = [] {
    std::vector<std::uint32_t> all(5000);
    for (std::uint32_t i = 0; i < all.size(); ++i) all[i] = 1 + static_cast<std::uint32_t>(mix64(i) % 700);
    return all;
  }();
  const PackOptions options{.seed = 42, .epoch = 3, .micro_batch_tokens = 2048};
  EXPECT_EQ(digest(make_epoch(lengths, options)), 17169060746671079429u);
  EXPECT_EQ(make_epoch(lengths, options), make_epoch(lengths, options));
}

TEST(Packing, SeedsAndEpochsGiveOtherOrders) {
  const auto lengths = chat_lengths(2000, 512);
  const EpochPlan plan = make_epoch(lengths, {.seed = 1, .epoch = 0});
  EXPECT_NE(plan, make_epoch(lengths, {.seed = 2, .epoch = 0}));
  EXPECT_NE(plan, make_epoch(lengths, {.seed = 1, .epoch = 1}));
}

TEST(Packing, ShuffledMicroBatchesDoNotSortByLength) {
  const auto lengths = chat_lengths(20000, 2048);
  const EpochPlan plan = make_epoch(lengths, {.seed = 1, .micro_batch_tokens = 2048});
  const auto mean_count = [&](std::size_t begin, std::size_t end) {
    double examples = 0;
    for (std::size_t m = begin; m < end; ++m) examples += static_cast<double>(plan[m].size());
    return examples / static_cast<double>(end - begin);
  };
  const std::size_t half = plan.size() / 2;
  EXPECT_NEAR(mean_count(0, half) / mean_count(half, plan.size()), 1.0, 0.25);
}

TEST(Packing, WithoutShuffleFollowsTheData) {
  const std::vector<std::uint32_t> lengths{4, 5, 6, 3, 2};
  const EpochPlan grouped = make_epoch(lengths, {.micro_batch_tokens = 10, .shuffle = false, .packing = false});
  ASSERT_EQ(grouped.size(), 3u);
  EXPECT_THAT(grouped[0], testing::ElementsAre(0, 1));
  EXPECT_THAT(grouped[1], testing::ElementsAre(2, 3));
  EXPECT_THAT(grouped[2], testing::ElementsAre(4));
  const EpochPlan packed = make_epoch(lengths, {.micro_batch_tokens = 10, .shuffle = false});
  ASSERT_EQ(packed.size(), 2u);
  EXPECT_THAT(packed[0], testing::ElementsAre(0, 2));
  EXPECT_THAT(packed[1], testing::ElementsAre(1, 3, 4));
}

TEST(Packing, RefusesWhatDoesNotFit) {
  const std::vector<std::uint32_t> lengths{4, 11};
  EXPECT_THROW(make_epoch(lengths, {.micro_batch_tokens = 10}), UsageError);
  const std::vector<std::uint32_t> empty_example{4, 0};
  EXPECT_THROW(make_epoch(empty_example, {.micro_batch_tokens = 10}), UsageError);
}

TEST(Split, IsDisjointCompleteAndRepeatable) {
  const Split split = split_validation(1000, 0.05, 7);
  EXPECT_EQ(split.validation.size(), 50u);
  std::vector<std::uint32_t> all = split.train;
  all.insert(all.end(), split.validation.begin(), split.validation.end());
  std::ranges::sort(all);
  std::vector<std::uint32_t> expected(1000);
  std::iota(expected.begin(), expected.end(), 0u);
  EXPECT_EQ(all, expected);
  EXPECT_EQ(split.validation, split_validation(1000, 0.05, 7).validation);
  EXPECT_NE(split.validation, split_validation(1000, 0.05, 8).validation);
}

TEST(Split, KeepsAtLeastOneOnEachSide) {
  EXPECT_EQ(split_validation(3, 0.001, 1).validation.size(), 1u);
  EXPECT_EQ(split_validation(3, 0.999, 1).train.size(), 1u);
  EXPECT_THROW(split_validation(1, 0.5, 1), UsageError);
  EXPECT_THROW(split_validation(10, 0.0, 1), UsageError);
  EXPECT_THROW(split_validation(10, 1.0, 1), UsageError);
  EXPECT_THROW(split_validation(10, std::nan(""), 1), UsageError);
}

}  // namespace
}  // namespace lomu

// The bucket plan and the overlap schedule: everything once, in order, in fair shares; reduced bucket by bucket over
// ranks as threads it gives the tree's bits, and a rank that fails or is late is named.
#include "comm/gradient_buckets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>
#include <thread>

#include "comm/gradient_reducer.h"
#include "comm/thread_communicator.h"
#include "tests/comm/tree_oracle.h"

namespace lomu {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<PairShape> random_pairs(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<PairShape> pairs;
  for (std::size_t i = 0; i < count; ++i) {
    pairs.push_back({"pair " + std::to_string(i), 1 + random() % 40, 1 + random() % 40, 1 + random() % 8});
  }
  lay_out(pairs);
  return pairs;
}

std::size_t held(std::span<const Segment> segments) {
  std::size_t floats = 0;
  for (const Segment& segment : segments) floats += segment.count;
  return floats;
}

constexpr std::size_t kCounts[] = {1, 2, 3, 5, 14, 60};
constexpr int kWorlds[] = {1, 2, 3, 4, 7, 64};

// Calls body(pairs, plan, ranks) for plans of all kinds.
template <class Body>
void for_plans(Body body) {
  unsigned seed = 0;
  for (const std::size_t count : kCounts) {
    for (const int ranks : kWorlds) {
      for (const std::size_t least : {std::size_t{1}, std::size_t{5000}, std::size_t{1} << 30}) {
        for (const std::size_t most : {1u, 2u, 4u}) {
          const auto pairs = random_pairs(count, ++seed);
          body(pairs, plan_buckets(pairs, ranks, {least, most}), ranks);
        }
      }
    }
  }
}

TEST(GradientBuckets, CoverThePairsOnceInBackwardOrder) {
  for_plans([](const std::vector<PairShape>& pairs, const BucketPlan& plan, int) {
    ASSERT_GE(plan.buckets.size(), 1u);
    ASSERT_LE(plan.buckets.size(), 4u);
    std::size_t pair = 0, at = 0;
    for (const GradientBucket& bucket : plan.buckets) {
      ASSERT_EQ(bucket.first_pair, pair);
      ASSERT_GT(bucket.end_pair, bucket.first_pair);
      ASSERT_EQ(bucket.flat.begin, at);
      pair = bucket.end_pair;
      at += bucket.flat.count;
      ASSERT_EQ(at, pairs[pair - 1].offset + pairs[pair - 1].floats());
    }
    ASSERT_EQ(pair, pairs.size());
    ASSERT_EQ(at, plan.length);
  });
}

TEST(GradientBuckets, GiveEveryPairOneOwnerAndFairShares) {
  for_plans([](const std::vector<PairShape>& pairs, const BucketPlan& plan, int ranks) {
    std::vector<std::size_t> of_rank(static_cast<std::size_t>(ranks), 0);
    for (const GradientBucket& bucket : plan.buckets) {
      ASSERT_EQ(bucket.segments.size(), of_rank.size());
      std::vector<int> owner(bucket.flat.count, -1);
      std::size_t least = bucket.flat.count, most = 0, largest = 0;
      for (std::size_t rank = 0; rank < of_rank.size(); ++rank) {
        std::size_t before = 0;
        for (const Segment& s : bucket.segments[rank]) {
          ASSERT_GE(s.begin, before) << "segments ascend";
          before = s.begin + s.count + 1;  // merged: never adjacent
          for (std::size_t i = s.begin; i < s.begin + s.count; ++i) {
            int& slot = owner.at(i - bucket.flat.begin);
            ASSERT_EQ(slot, -1);
            slot = static_cast<int>(rank);
          }
        }
        const std::size_t share = held(bucket.segments[rank]);
        least = std::min(least, share);
        most = std::max(most, share);
        of_rank[rank] += share;
      }
      for (std::size_t p = bucket.first_pair; p < bucket.end_pair; ++p) {
        largest = std::max(largest, pairs[p].floats());
        for (std::size_t i = 0; i < pairs[p].floats(); ++i) {
          ASSERT_EQ(owner[pairs[p].offset - bucket.flat.begin + i], plan.shards.owner[p]);
        }
      }
      ASSERT_LE(most - least, largest);
    }
    for (std::size_t rank = 0; rank < of_rank.size(); ++rank) {
      ASSERT_EQ(held(plan.shards.segments[rank]), of_rank[rank]);
      ASSERT_TRUE(std::is_sorted(plan.shards.pairs[rank].begin(), plan.shards.pairs[rank].end()));
    }
  });
}

// Llama-3-8B at rank 16, all sites: 168 MB.
TEST(GradientBuckets, AreFewAndTheLastIsTheSmallest) {
  std::vector<PairShape> pairs;
  const std::pair<std::size_t, std::size_t> sites[] = {{4096, 14336}, {14336, 4096}, {14336, 4096}, {4096, 4096},
                                                       {1024, 4096},  {1024, 4096},  {4096, 4096}};
  for (int layer = 0; layer < 32; ++layer) {
    for (const auto& [m, n] : sites) pairs.push_back({"pair", m, n, 16});
  }
  lay_out(pairs);
  const BucketPlan plan = plan_buckets(pairs, 8);
  ASSERT_EQ(plan.buckets.size(), 4u);
  const std::size_t last = plan.buckets.back().flat.count;
  for (std::size_t b = 0; b + 1 < 4; ++b) {
    EXPECT_NEAR(static_cast<double>(plan.buckets[b].flat.count) / static_cast<double>(last), 2.0, 0.1);
    for (const auto& segments : plan.buckets[b].segments) {
      EXPECT_NEAR(static_cast<double>(held(segments)), static_cast<double>(plan.buckets[b].flat.count) / 8, 18432 * 16);
    }
  }
  EXPECT_EQ(plan_buckets(std::span(pairs).first(7), 8).buckets.size(), 1u) << "5 MB are not worth two collectives";
}

TEST(GradientBuckets, RefuseWhatCannotBe) {
  auto pairs = random_pairs(3, 1);
  EXPECT_THROW(plan_buckets(pairs, 0), UsageError);
  EXPECT_THROW(plan_buckets(pairs, 1, {1, 0}), UsageError);
  EXPECT_TRUE(plan_buckets({}, 2).buckets.empty());
  pairs[1].offset += 1;
  EXPECT_THROW(plan_buckets(pairs, 1), UsageError);
}

TEST(OverlapSchedule, ReleasesABucketWithItsLastPairOfTheLastMicroBatch) {
  for_plans([](const std::vector<PairShape>& pairs, const BucketPlan& plan, int) {
    OverlapSchedule schedule(plan);
    for (const std::size_t micro_batches : {1u, 3u}) {
      schedule.begin(micro_batches);
      std::size_t sent = 0;
      for (std::size_t i = 0; i < micro_batches; ++i) {
        for (std::size_t p = 0; p < pairs.size(); ++p) {
          ASSERT_FALSE(schedule.complete());
          const Block now = schedule.passed(i, p);
          ASSERT_EQ(now.begin, sent);
          const bool due = i + 1 == micro_batches && plan.buckets[sent].end_pair == p + 1;
          ASSERT_EQ(now.size(), due ? 1u : 0u);
          sent = now.end;
        }
      }
      ASSERT_EQ(sent, plan.buckets.size());
      ASSERT_TRUE(schedule.complete());
      ASSERT_EQ(schedule.at_once().size(), 0u);
    }
  });
}

TEST(OverlapSchedule, LetsARankWithoutMicroBatchesSendEverythingAtOnce) {
  const BucketPlan plan = plan_buckets(random_pairs(9, 3), 2, {1, 3});
  OverlapSchedule schedule(plan);
  schedule.begin(0);
  EXPECT_EQ(schedule.at_once().size(), 3u);
  EXPECT_TRUE(schedule.complete());
  EXPECT_THROW(schedule.passed(0, 0), Error);
  schedule.begin(1);
  EXPECT_THROW(schedule.passed(0, 1), Error);
  EXPECT_THROW(schedule.passed(1, 0), Error);
}

// ---- over ranks as threads -----------------------------------------------------------------------------------------

struct Job {
  std::vector<PairShape> pairs;
  std::size_t micro_batches = 0;
  int ranks = 1;
};

// What a bucket's reduction sees of the flat buffers.
std::vector<std::vector<Segment>> relative(const GradientBucket& bucket) {
  auto shards = bucket.segments;
  for (auto& segments : shards) {
    for (Segment& s : segments) s.begin -= bucket.flat.begin;
  }
  return shards;
}

// One step of a rank: sums its micro-batches but the last, then "backward" writes the last pair by pair and each bucket
// goes as soon as the schedule lets it. `before_pair` may fail or dawdle. Returns the rank's sums.
template <class BeforePair>
std::vector<float> step(Communicator& comm, const Job& job, const BucketPlan& plan, BeforePair before_pair) {
  const ReductionPlan tree(job.micro_batches, comm.size());
  const Block block = tree.block(comm.rank());
  const auto gradients = oracle::gradients(job.micro_batches, plan.length, 5);
  std::vector<float> out(plan.length, -1.0f);
  OverlapSchedule schedule(plan);
  schedule.begin(block.size());
  const auto reduce = [&](Block buckets) {
    for (std::size_t b = buckets.begin; b < buckets.end; ++b) {
      const Segment flat = plan.buckets[b].flat;
      const auto shards = relative(plan.buckets[b]);
      std::vector<float> storage(BufferPool::storage_floats(tree.buffers_needed(comm.rank()), flat.count));
      BufferPool pool(storage, flat.count);
      TreeAccumulator sums(tree, comm.rank(), pool);
      for (std::size_t i = block.begin; i < block.end; ++i) {
        std::copy_n(gradients[i].begin() + static_cast<std::ptrdiff_t>(flat.begin), flat.count,
                    sums.next_buffer().begin());
        sums.push(i);
      }
      std::vector<float> workspace(GradientReducer::workspace_floats(tree, shards, comm.rank()));
      GradientReducer reducer(comm, tree, shards, flat.count, workspace);
      reducer.reduce_to_owners(sums.partials(), std::span(out).subspan(flat.begin, flat.count));
    }
  };
  reduce(schedule.at_once());
  for (std::size_t i = 0; i < block.size(); ++i) {
    for (std::size_t p = 0; p < job.pairs.size(); ++p) {
      before_pair(i, p);
      reduce(schedule.passed(i, p));
    }
  }
  EXPECT_TRUE(schedule.complete());
  return out;
}

TEST(GradientBuckets, ReducedAsBackwardPassesGiveTheBitsOfTheTree) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const std::size_t micro_batches : {1u, 4u, 7u}) {
      const Job job{random_pairs(11, 8), micro_batches, ranks};
      const BucketPlan plan = plan_buckets(job.pairs, ranks, {1, 3});
      unsigned level = 0;
      while ((std::size_t{1} << level) < micro_batches) ++level;
      const auto want = oracle::node_sum(oracle::gradients(micro_batches, plan.length, 5), 0, level);
      run_threads(ranks, [&](Communicator& comm) {
        const auto got = step(comm, job, plan, [](std::size_t, std::size_t) {});
        for (const Segment& s : plan.shards.segments[static_cast<std::size_t>(comm.rank())]) {
          for (std::size_t i = s.begin; i < s.begin + s.count; ++i) {
            ASSERT_EQ(std::bit_cast<unsigned>(got[i]), std::bit_cast<unsigned>(want[i]));
          }
        }
      });
    }
  }
}

template <class Fault>
std::string failure_of(Fault fault, const CommOptions& options) {
  const Job job{random_pairs(11, 8), 6, 3};
  const BucketPlan plan = plan_buckets(job.pairs, job.ranks, {1, 3});
  try {
    run_threads(
        job.ranks,
        [&](Communicator& comm) {
          comm.set_context("step 12");
          step(comm, job, plan, [&](std::size_t i, std::size_t p) { fault(comm, i, p); });
        },
        options);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

TEST(GradientBuckets, ARankThatThrowsInTheMiddleOfBackwardEndsTheStep) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(failure_of(
                  [](Communicator& comm, std::size_t i, std::size_t p) {
                    if (comm.rank() == 1 && i == 1 && p == 7) throw NumericError("layer 3 is not finite");
                  },
                  {}),
              HasSubstr("layer 3 is not finite"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(GradientBuckets, ADeadlineNamesTheLateRankTheOperationAndTheStep) {
  const std::string message = failure_of(
      [](Communicator& comm, std::size_t i, std::size_t p) {
        if (comm.rank() == 2 && i == 1 && p == 9) std::this_thread::sleep_for(std::chrono::milliseconds(600));
      },
      {std::chrono::milliseconds(150)});
  EXPECT_THAT(message, AllOf(HasSubstr("waited 0.15 s"), HasSubstr("gradients to owners"), HasSubstr("at step 12"),
                             HasSubstr("rank 2")));
}

TEST(GradientBuckets, ARankThatIsSlowWithinTheDeadlineIsWaitedFor) {
  EXPECT_EQ(failure_of(
                [](Communicator& comm, std::size_t, std::size_t p) {
                  if (comm.rank() == 0 && p == 3) std::this_thread::sleep_for(std::chrono::milliseconds(50));
                },
                {std::chrono::seconds(20)}),
            "no error");
}

}  // namespace
}  // namespace lomu

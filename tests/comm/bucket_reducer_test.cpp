// Reducing and gathering bucket by bucket, with the device's kernels in emulation and ranks as threads.
#include "comm/bucket_reducer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "comm/thread_communicator.h"
#include "tests/comm/emulated_transport.h"
#include "tests/comm/tree_oracle.h"

namespace lomu {
namespace {

constexpr float kUnset = std::numeric_limits<float>::quiet_NaN();

std::vector<PairShape> pairs_of(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<PairShape> pairs;
  for (std::size_t i = 0; i < count; ++i)
    pairs.push_back({"pair", 1 + random() % 50, 1 + random() % 50, 1 + random() % 9});
  lay_out(pairs);
  return pairs;
}

unsigned levels_of(std::size_t micro_batches) {
  unsigned level = 0;
  while ((std::size_t{1} << level) < micro_batches) ++level;
  return level;
}

struct Case {
  std::size_t pairs, micro_batches;
  int ranks;
};

// Every rank's partials of a step, reduced in all buckets; every rank checks what it owns, then hands out "factors".
void reduce_and_gather(const Case& c, AdditionOrder order) {
  const auto pairs = pairs_of(c.pairs, static_cast<unsigned>(c.pairs));
  const BucketPlan buckets = plan_buckets(pairs, c.ranks, {1, 3});
  const ReductionPlan plan(c.micro_batches, c.ranks);
  // Whole numbers: any order of additions gives the same sum.
  auto gradients = oracle::gradients(c.micro_batches, buckets.length, 9);
  if (order == AdditionOrder::kLibrary) {
    for (auto& g : gradients) {
      for (float& x : g) x = std::round(x) + 0.0f;  // no negative zeros
    }
  }
  const auto want = oracle::node_sum(gradients, 0, levels_of(c.micro_batches));
  run_threads(c.ranks, [&](Communicator& comm) {
    Memory memory;
    EmulatedTransport transport(comm, memory);
    BucketReducer reducer(transport, buckets, plan, order);
    std::vector<std::vector<float>> sums;
    for (const TreeNode& node : plan.partials(comm.rank())) {
      sums.push_back(oracle::node_sum(gradients, node.start, node.level));
      if (order == AdditionOrder::kLibrary && sums.size() > 1) {
        sums[0] = oracle::add(sums[0], sums[1]);
        sums.pop_back();
      }
    }
    std::vector<const float*> partials;
    for (const auto& sum : sums) partials.push_back(sum.data());
    std::vector<float> out(buckets.length, kUnset);
    for (int step = 0; step < 2; ++step) {
      for (std::size_t b = 0; b < buckets.buckets.size(); ++b) reducer.reduce(b, partials, out.data());
    }
    std::vector<float> expected(buckets.length, kUnset);
    for (const Segment& s : buckets.shards.segments[static_cast<std::size_t>(comm.rank())]) {
      std::copy_n(want.begin() + static_cast<std::ptrdiff_t>(s.begin), s.count,
                  expected.begin() + static_cast<std::ptrdiff_t>(s.begin));
    }
    const auto same = [](float a, float b) { return std::bit_cast<unsigned>(a) == std::bit_cast<unsigned>(b); };
    if (c.ranks == 1) expected = want;
    EXPECT_TRUE(std::equal(out.begin(), out.end(), expected.begin(), same)) << "rank " << comm.rank();

    for (std::size_t b = 0; b < buckets.buckets.size(); ++b) reducer.gather(b, out.data());
    EXPECT_TRUE(std::equal(out.begin(), out.end(), want.begin(), same)) << "rank " << comm.rank();
  });
}

constexpr Case kCases[] = {{11, 1, 1}, {11, 6, 1}, {11, 4, 2}, {11, 7, 2}, {11, 5, 3},
                           {11, 8, 4}, {3, 7, 5},  {1, 2, 2},  {1, 1, 3},  {60, 3, 4}};

TEST(BucketReducer, GivesTheBitsOfTheTreeOnAnyRanks) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.pairs << " pairs, " << c.micro_batches << " micro-batches, " << c.ranks
                                    << " ranks");
    reduce_and_gather(c, AdditionOrder::kTree);
  }
}

TEST(BucketReducer, GivesTheSumInTheLibrarysOrder) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << c.pairs << " pairs, " << c.micro_batches << " micro-batches, " << c.ranks
                                    << " ranks");
    reduce_and_gather(c, AdditionOrder::kLibrary);
  }
}

TEST(BucketReducer, RefusesPlansThatDoNotFit) {
  run_threads(1, [](Communicator& comm) {
    Memory memory;
    EmulatedTransport transport(comm, memory);
    const auto pairs = pairs_of(3, 1);
    EXPECT_THROW(BucketReducer(transport, plan_buckets(pairs, 2), ReductionPlan(2, 2), AdditionOrder::kTree),
                 UsageError);
    EXPECT_THROW(BucketReducer(transport, plan_buckets(pairs, 2), ReductionPlan(2, 1), AdditionOrder::kTree),
                 UsageError);
    BucketReducer reducer(transport, plan_buckets(pairs, 1), ReductionPlan(2, 1), AdditionOrder::kTree);
    std::vector<float> flat(reducer.buckets().length);
    EXPECT_THROW(reducer.reduce(0, {}, flat.data()), UsageError);
    const float* partial = flat.data();
    EXPECT_THROW(reducer.reduce(1, {&partial, 1}, flat.data()), UsageError);
    EXPECT_THROW(reducer.gather(1, flat.data()), UsageError);
  });
}

// A rank that fails between two buckets, as backward does.
TEST(BucketReducer, NamesTheRankTheBucketAndTheStepOfAFault) {
  const auto pairs = pairs_of(9, 4);
  const BucketPlan buckets = plan_buckets(pairs, 3, {1, 3});
  std::string said;
  try {
    run_threads(3,
                [&](Communicator& comm) {
                  comm.set_context("step 31");
                  Memory memory;
                  EmulatedTransport transport(comm, memory);
                  BucketReducer reducer(transport, buckets, ReductionPlan(3, 3), AdditionOrder::kTree);
                  const std::vector<float> sum(buckets.length, 1.0f);
                  const float* partial = sum.data();
                  std::vector<float> out(buckets.length);
                  for (std::size_t b = 0; b < 3; ++b) {
                    if (comm.rank() == 1 && b == 2) std::this_thread::sleep_for(std::chrono::milliseconds(500));
                    reducer.reduce(b, {&partial, 1}, out.data());
                  }
                },
                {std::chrono::milliseconds(200)});
  } catch (const std::exception& error) {
    said = error.what();
  }
  using ::testing::HasSubstr;
  EXPECT_THAT(said, testing::AllOf(HasSubstr("waited 0.2 s in exchange (gradients to owners, bucket 2) at step 31"),
                                   HasSubstr("for rank 1")));
}

}  // namespace
}  // namespace lomu

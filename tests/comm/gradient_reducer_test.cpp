// Reduction over ranks: the same bits for every world size, and equal to the plain tree.
#include "comm/gradient_reducer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <mutex>
#include <random>
#include <vector>

#include "comm/shard_plan.h"
#include "comm/thread_communicator.h"
#include "tests/comm/tree_oracle.h"

namespace lomu {
namespace {

using ::testing::HasSubstr;

using Shards = std::vector<std::vector<Segment>>;

// Cuts [0, length) at random and deals the pieces to random owners; some may get nothing.
Shards random_shards(std::size_t length, int world, std::mt19937& random) {
  Shards shards(static_cast<std::size_t>(world));
  std::size_t at = 0;
  while (at < length) {
    const std::size_t count = std::min<std::size_t>(length - at, 1 + random() % 400);
    shards[random() % shards.size()].push_back({at, count});
    at += count;
  }
  return shards;
}

// One step on `world` ranks: reduce, let owners negate their sums, gather. Returns what every rank ends with.
std::vector<float> negated_sum(const std::vector<std::vector<float>>& gradients, int world, const Shards& shards) {
  const std::size_t length = gradients[0].size();
  std::vector<std::vector<float>> results(static_cast<std::size_t>(world));
  run_threads(world, [&](Communicator& comm) {
    const ReductionPlan plan(gradients.size(), comm.size());
    std::vector<float> storage(BufferPool::storage_floats(plan.buffers_needed(comm.rank()), length));
    BufferPool pool(storage, length);
    TreeAccumulator accumulator(plan, comm.rank(), pool);
    std::vector<float> workspace(GradientReducer::workspace_floats(plan, shards, comm.rank()));
    GradientReducer reducer(comm, plan, shards, length, workspace);
    std::vector<float> own(length);
    for (int step = 0; step < 2; ++step) {
      for (std::size_t i = plan.block(comm.rank()).begin; i < plan.block(comm.rank()).end; ++i) {
        std::copy(gradients[i].begin(), gradients[i].end(), accumulator.next_buffer().begin());
        accumulator.push(i);
      }
      // In place where there is a partial, else into memory of its own.
      const auto partials = accumulator.partials();
      const std::span<float> out = partials.empty() ? std::span<float>(own) : partials[0].sum;
      reducer.reduce_to_owners(partials, out);
      std::vector<float>& result = results[static_cast<std::size_t>(comm.rank())];
      result.assign(length, 0.0f);
      for (const Segment& segment : shards[static_cast<std::size_t>(comm.rank())]) {
        for (std::size_t j = 0; j < segment.count; ++j) result[segment.begin + j] = -out[segment.begin + j];
      }
      reducer.gather_factors(result);
      accumulator.reset();
    }
  });
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
  return results[0];
}

TEST(GradientReducer, SumsAreBitIdenticalForEveryWorldSizeAndEqualThePlainTree) {
  constexpr std::size_t kLength = 5003;  // several tiles, and a ragged one
  std::mt19937 random(1);
  for (const std::size_t micro_batches : {1, 2, 3, 4, 5, 7, 8, 13}) {
    const auto gradients = oracle::gradients(micro_batches, kLength, 11);
    auto expected = oracle::node_sum(gradients, 0, static_cast<unsigned>(std::bit_width(micro_batches - 1)));
    for (float& value : expected) value = -value;
    for (const int world : {1, 2, 3, 4, 5, 8}) {
      EXPECT_EQ(negated_sum(gradients, world, random_shards(kLength, world, random)), expected)
          << micro_batches << " micro-batches on " << world << " ranks";
    }
  }
}

TEST(GradientReducer, WorksWithAPlanByPairAndMoreRanksThanPairs) {
  std::vector<PairShape> pairs{{"q", 64, 64, 4}, {"k", 16, 64, 4}, {"up", 128, 64, 4}};
  const std::size_t length = lay_out(pairs);
  const auto gradients = oracle::gradients(6, length, 2);
  const auto expected = negated_sum(gradients, 1, shard_by_pair(pairs, 1).segments);
  for (const int world : {2, 3, 5, 8}) {
    EXPECT_EQ(negated_sum(gradients, world, shard_by_pair(pairs, world).segments), expected);
  }
}

TEST(GradientReducer, OneRankMovesNothing) {
  const auto comm = make_self_communicator();
  const ReductionPlan plan(1, 1);
  const Shards shards{{{0, 100}}};
  EXPECT_EQ(GradientReducer::workspace_floats(plan, shards, 0), 0u);
  GradientReducer reducer(*comm, plan, shards, 100, {});
  std::vector<float> gradient(100, 2.0f), elsewhere(100);
  const Partial root{{0, 0}, gradient};
  reducer.reduce_to_owners({&root, 1}, gradient);
  EXPECT_EQ(gradient, std::vector<float>(100, 2.0f));
  reducer.reduce_to_owners({&root, 1}, elsewhere);
  EXPECT_EQ(elsewhere, gradient);
}

TEST(GradientReducer, ShardsThatOverlapOrLeaveGapsAreRefused) {
  const auto comm = make_self_communicator();
  const ReductionPlan plan(2, 1);
  for (const Shards& bad :
       {Shards{{{0, 50}, {40, 60}}}, Shards{{{0, 50}, {60, 40}}}, Shards{{{0, 99}}}, Shards{{{0, 101}}},
        Shards{{{0, static_cast<std::size_t>(-1)}}}, Shards{{{0, 50}}, {{50, 50}}}}) {
    EXPECT_THROW(GradientReducer(*comm, plan, bad, 100, {}), UsageError);
  }
}

TEST(GradientReducer, PartialsOtherThanPlannedAreRefused) {
  const auto comm = make_self_communicator();
  GradientReducer reducer(*comm, ReductionPlan(2, 1), {{{0, 4}}}, 4, {});
  std::vector<float> values(4);
  const Partial leaf{{0, 0}, values};
  EXPECT_THROW(reducer.reduce_to_owners({&leaf, 1}, values), UsageError);
  EXPECT_THROW(reducer.reduce_to_owners({}, values), UsageError);
}

TEST(GradientReducer, AWorkspaceTooSmallIsRefused) {
  EXPECT_THROW(run_threads(2,
                           [](Communicator& comm) {
                             GradientReducer reducer(comm, ReductionPlan(2, 2), {{{0, 4}}, {{4, 4}}}, 8, {});
                           }),
               UsageError);
}

TEST(GradientReducer, ARankThatFailsInAStepIsNamed) {
  try {
    run_threads(3, [](Communicator& comm) {
      const ReductionPlan plan(3, 3);
      const Shards shards{{{0, 10}}, {{10, 10}}, {{20, 10}}};
      std::vector<float> workspace(GradientReducer::workspace_floats(plan, shards, comm.rank())), gradient(30);
      GradientReducer reducer(comm, plan, shards, 30, workspace);
      const Partial mine{{static_cast<std::size_t>(comm.rank()), comm.rank() == 2 ? 1u : 0u}, gradient};
      if (comm.rank() == 2) throw NumericError("rank 2 has a NaN");
      reducer.reduce_to_owners({&mine, 1}, gradient);
    });
    FAIL();
  } catch (const NumericError& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 2 has a NaN"));
  }
}

TEST(MicroBatchValues, AreTheSameOnEveryRankAndWorld) {
  for (const std::size_t micro_batches : {1, 3, 8, 13}) {
    std::vector<double> losses;
    for (std::size_t i = 0; i < micro_batches; ++i) losses.push_back(oracle::noise(i, 8));
    for (const int world : {1, 2, 3, 5, 8}) {
      run_threads(world, [&](Communicator& comm) {
        const ReductionPlan plan(micro_batches, comm.size());
        const Block block = plan.block(comm.rank());
        EXPECT_EQ(gather_micro_batch_values(comm, plan, std::span(losses).subspan(block.begin, block.size())), losses);
      });
    }
  }
}

}  // namespace
}  // namespace lomu

// The tree and a rank's own sums, against the tree written down as plainly as possible.
#include "comm/reduction_tree.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <vector>

#include "kernels/error.h"
#include "tests/comm/tree_oracle.h"

namespace lomu {
namespace {

constexpr int kWorlds[] = {1, 2, 3, 4, 5, 8, 13, 20};

TEST(ReductionPlan, BlocksFollowEachOtherAndDifferByOneAtMost) {
  for (std::size_t micro_batches = 1; micro_batches <= 40; ++micro_batches) {
    for (const int world : kWorlds) {
      const ReductionPlan plan(micro_batches, world);
      std::size_t at = 0;
      for (int rank = 0; rank < world; ++rank) {
        const Block block = plan.block(rank);
        EXPECT_EQ(block.begin, at);
        EXPECT_LE(block.size(), micro_batches / static_cast<std::size_t>(world) + 1);
        EXPECT_GE(block.size(), micro_batches / static_cast<std::size_t>(world));
        at = block.end;
      }
      EXPECT_EQ(at, micro_batches);
    }
  }
}

TEST(ReductionPlan, PartialsAreTheLargestNodesOfEachBlock) {
  for (std::size_t micro_batches = 1; micro_batches <= 40; ++micro_batches) {
    for (const int world : kWorlds) {
      const ReductionPlan plan(micro_batches, world);
      for (int rank = 0; rank < world; ++rank) {
        const auto partials = plan.partials(rank);
        const auto expected = oracle::largest_nodes(micro_batches, plan.block(rank));
        ASSERT_EQ(std::vector<TreeNode>(partials.begin(), partials.end()), expected)
            << micro_batches << " micro-batches, rank " << rank << " of " << world;
      }
    }
  }
}

TEST(ReductionPlan, OneRankHoldsLogarithmicallyManyBuffers) {
  for (std::size_t micro_batches = 1; micro_batches <= 300; ++micro_batches) {
    const ReductionPlan plan(micro_batches, 1);
    EXPECT_LE(plan.buffers_needed(0), static_cast<std::size_t>(std::bit_width(micro_batches)));
    EXPECT_EQ(plan.partials(0).size(), 1u);
    for (const int world : {2, 3, 7}) {
      const ReductionPlan shared(micro_batches, world);
      for (int rank = 0; rank < world; ++rank) {
        EXPECT_LE(shared.buffers_needed(rank), 2 * static_cast<std::size_t>(std::bit_width(micro_batches)));
      }
    }
  }
}

TEST(ReductionPlan, ImpossibleNumbersAreRefused) {
  EXPECT_THROW(ReductionPlan(0, 1), UsageError);
  EXPECT_THROW(ReductionPlan(4, 0), UsageError);
  EXPECT_THROW(ReductionPlan(static_cast<std::size_t>(-1), 1), UsageError);
  EXPECT_THROW(static_cast<void>(ReductionPlan(4, 2).block(2)), UsageError);
}

TEST(TreeAccumulator, PartialsEqualTheTreeBitForBit) {
  constexpr std::size_t kLength = 1000;
  for (std::size_t micro_batches = 1; micro_batches <= 17; ++micro_batches) {
    const auto gradients = oracle::gradients(micro_batches, kLength, 3);
    for (const int world : {1, 2, 3, 5}) {
      const ReductionPlan plan(micro_batches, world);
      for (int rank = 0; rank < world; ++rank) {
        std::vector<float> storage(BufferPool::storage_floats(plan.buffers_needed(rank), kLength));
        BufferPool pool(storage, kLength);
        const std::size_t buffers = pool.available();
        TreeAccumulator accumulator(plan, rank, pool);
        for (int step = 0; step < 2; ++step) {
          for (std::size_t i = plan.block(rank).begin; i < plan.block(rank).end; ++i) {
            std::copy(gradients[i].begin(), gradients[i].end(), accumulator.next_buffer().begin());
            accumulator.push(i);
          }
          for (const Partial& partial : accumulator.partials()) {
            const auto expected = oracle::node_sum(gradients, partial.node.start, partial.node.level);
            ASSERT_TRUE(std::equal(partial.sum.begin(), partial.sum.end(), expected.begin(), expected.end()));
          }
          accumulator.reset();
          EXPECT_EQ(pool.available(), buffers);
        }
      }
    }
  }
}

TEST(TreeAccumulator, OneBufferMoreThanParallelThreshold) {
  constexpr std::size_t kLength = (1 << 16) + 7;
  const auto gradients = oracle::gradients(5, kLength, 9);
  const ReductionPlan plan(5, 1);
  std::vector<float> storage(BufferPool::storage_floats(plan.buffers_needed(0), kLength));
  BufferPool pool(storage, kLength);
  TreeAccumulator accumulator(plan, 0, pool);
  for (std::size_t i = 0; i < 5; ++i) {
    std::copy(gradients[i].begin(), gradients[i].end(), accumulator.next_buffer().begin());
    accumulator.push(i);
  }
  const auto expected = oracle::node_sum(gradients, 0, 3);
  const auto sum = accumulator.partials()[0].sum;
  EXPECT_TRUE(std::equal(sum.begin(), sum.end(), expected.begin(), expected.end()));
}

TEST(TreeAccumulator, MisuseIsAnErrorAndLosesNoBuffer) {
  const ReductionPlan plan(4, 2);
  std::vector<float> storage(BufferPool::storage_floats(1, 8));
  BufferPool pool(storage, 8);
  {
    TreeAccumulator accumulator(plan, 1, pool);
    EXPECT_THROW(accumulator.push(2), Error);  // no buffer filled
    accumulator.next_buffer();
    EXPECT_THROW(accumulator.push(0), Error);  // not this rank's
    EXPECT_THROW(static_cast<void>(accumulator.partials()), Error);
    accumulator.push(2);
    EXPECT_THROW(accumulator.next_buffer(), Error);  // pool too small
  }
  EXPECT_EQ(pool.available(), 1u);
}

TEST(BufferPool, SizesThatOverflowAreRefused) {
  EXPECT_THROW(BufferPool::storage_floats(2, static_cast<std::size_t>(-1)), UsageError);
  EXPECT_THROW(BufferPool::storage_floats(static_cast<std::size_t>(1) << 40, static_cast<std::size_t>(1) << 40),
               UsageError);
  std::vector<float> storage(64);
  EXPECT_THROW(BufferPool(storage, 0), UsageError);
}

TEST(TreeSum, FollowsTheSameTree) {
  for (std::size_t count = 0; count <= 33; ++count) {
    std::vector<double> values;
    for (std::size_t i = 0; i < count; ++i) values.push_back(oracle::noise(i, 5));
    EXPECT_EQ(tree_sum(values),
              count == 0 ? 0.0 : oracle::node_sum(values, 0, static_cast<unsigned>(std::bit_width(count - 1))));
  }
}

TEST(TreeSum, OrderMattersForTheseNumbers) {
  // Else the tests above would prove nothing.
  const auto gradients = oracle::gradients(13, 1000, 3);
  std::vector<float> sequential(1000);
  for (const auto& gradient : gradients) {
    for (std::size_t j = 0; j < 1000; ++j) sequential[j] += gradient[j];
  }
  EXPECT_NE(sequential, oracle::node_sum(gradients, 0, 4));
}

}  // namespace
}  // namespace lomu

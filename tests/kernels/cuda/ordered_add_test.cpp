// Ordered sums against the reduction tree written as a recursion, bit for bit; and copies of many runs.
#include "kernels/cuda/ordered_add.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <memory>

#include "comm/reduction_tree.h"
#include "kernels/cuda/copy_tiles.h"
#include "kernels/cuda/emulation/schedule.h"
#include "kernels/error.h"
#include "tests/comm/tree_oracle.h"

namespace lomu::cuda {
namespace {

constexpr float kUnset = std::numeric_limits<float>::quiet_NaN();

// Exactly n floats, 16-byte aligned.
struct Aligned {
  explicit Aligned(std::size_t n) : data(new (std::align_val_t{16}) float[n]), size(n) {
    std::fill_n(data.get(), n, kUnset);
  }
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{16}); }
  };
  std::unique_ptr<float[], Free> data;
  std::size_t size;
};

// The sum of a step's micro-batches as `ranks` ranks leave it: each rank's partials, then the order of
// reduction_tree.h.
void check_sum(std::size_t micro_batches, int ranks, std::size_t n) {
  const auto gradients = oracle::gradients(micro_batches, n, 3 * micro_batches + n);
  const ReductionPlan plan(micro_batches, ranks);
  std::vector<Aligned> values;
  std::vector<OrderedSource> sources;
  NodeStack stack(micro_batches);
  std::size_t depth = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    for (const TreeNode& node : plan.partials(rank)) {
      const auto sum = oracle::node_sum(gradients, node.start, node.level);
      std::copy(sum.begin(), sum.end(), values.emplace_back(n).data.get());
      const std::size_t additions = stack.push(node);
      depth = std::max(depth, stack.size() + additions);
      sources.push_back({values.back().data.get(), static_cast<std::uint32_t>(additions), 0});
    }
  }
  unsigned level = 0;
  while ((std::size_t{1} << level) < micro_batches) ++level;
  const auto want = oracle::node_sum(gradients, 0, level);
  Aligned got(n);
  ordered_add(sources.data(), static_cast<int>(sources.size()), static_cast<int>(depth), got.data.get(), n, nullptr);
  for (std::size_t i = 0; i < n; ++i) {
    ASSERT_EQ(std::bit_cast<unsigned>(got.data[i]), std::bit_cast<unsigned>(want[i]))
        << micro_batches << " micro-batches on " << ranks << " ranks, element " << i << " of " << n;
  }
}

TEST(CudaOrderedAdd, GivesTheBitsOfTheTreeForAnyRanksAndMicroBatches) {
  for (const std::size_t micro_batches : {1, 2, 3, 4, 5, 7, 8, 13, 21}) {
    for (const int ranks : {1, 2, 3, 4, 5, 8, 30}) check_sum(micro_batches, ranks, 5);
  }
}

TEST(CudaOrderedAdd, TakesAnyLength) {
  for (const std::size_t n : {1, 2, 3, 4, 31, 511, 512, 513, 1027}) check_sum(7, 3, n);
}

TEST(CudaOrderedAdd, HoldsUnderEverySchedule) {
  emu::for_each_schedule([](unsigned seed) {
    SCOPED_TRACE(seed);
    check_sum(11, 4, 700);
  });
}

TEST(CudaOrderedAdd, RefusesWhatIsNoSum) {
  float x = 0;
  EXPECT_THROW(ordered_add(nullptr, 0, 1, &x, 1, nullptr), UsageError);
  EXPECT_THROW(ordered_add(nullptr, 1, 0, &x, 1, nullptr), UsageError);
  EXPECT_THROW(ordered_add(nullptr, 1, kDeepestSum + 1, &x, 1, nullptr), UsageError);
  EXPECT_NO_THROW(ordered_add(nullptr, 1, 1, &x, 0, nullptr));
}

TEST(CudaCopyTiles, CopiesRunsOfAnyLengthAndAlignmentAndNothingElse) {
  struct Run {
    std::uint64_t from, to, count;
  };
  const Run runs[] = {{0, 16, 1}, {5, 17, 3}, {8, 20, 8}, {16, 28, 9001}, {9020, 9029, 4097}, {13117, 13127, 0}};
  Aligned from(13117), to(13130);
  for (std::size_t i = 0; i < from.size; ++i) from.data[i] = static_cast<float>(i);
  std::vector<CopyTile> tiles;
  std::vector<float> want(to.size, kUnset);
  for (const Run& run : runs) {
    append_tiles(tiles, run.from, run.to, run.count);
    for (std::uint64_t i = 0; i < run.count; ++i) want[run.to + i] = from.data[run.from + i];
  }
  copy_tiles(tiles.data(), tiles.size(), from.data.get(), to.data.get(), nullptr);
  for (std::size_t i = 0; i < to.size; ++i) {
    ASSERT_EQ(std::bit_cast<unsigned>(to.data[i]), std::bit_cast<unsigned>(want[i])) << i;
  }
  copy_tiles(nullptr, 0, from.data.get(), to.data.get(), nullptr);
}

}  // namespace
}  // namespace lomu::cuda

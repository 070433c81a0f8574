// The same bits from any number of threads, and from any company of other pairs.
#include <gtest/gtest.h>
#include <omp.h>

#include "engine/optimizers/optimizer.h"
#include "tests/engine/optimizers/test_pairs.h"

namespace lomu::testing {
namespace {

/// Many small pairs, and one long enough to be cut into several chunks.
std::vector<OwnedPair> some_pairs(std::size_t count) {
  std::mt19937_64 random(61);
  std::vector<OwnedPair> pairs;
  pairs.push_back(random_pair(random, 3000, 2100, 16));
  while (pairs.size() < count)
    pairs.push_back(random_pair(random, 70 + static_cast<std::int64_t>(pairs.size()), 50, 12));
  pairs.resize(count, pairs[0]);
  return pairs;
}

std::vector<OwnedPair> stepped(std::vector<OwnedPair> pairs, const OptimizerOptions& options, int threads) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  const auto optimizer = make_optimizer(options);
  std::vector<PairView> views;
  for (OwnedPair& p : pairs) {
    p.give_state(*optimizer);
    views.push_back(p.view());
  }
  StepReport report;
  for (std::int64_t step = 1; step <= 3; ++step) optimizer->step(views, {step, options.lr, 1.0}, report);
  omp_set_num_threads(before);
  return pairs;
}

class ThreadCount : public ::testing::TestWithParam<OptimizerKind> {};

TEST_P(ThreadCount, DoesNotChangeABit) {
  OptimizerOptions options;
  options.name = GetParam();
  options.lr = 0.01;
  options.balance_every = 2;
  options.max_grad_norm = 0.5;
  for (const std::size_t count : {1u, 3u, 20u}) {
    const auto pairs = some_pairs(count);
    const auto expected = stepped(pairs, options, 1);
    for (const int threads : {2, 3, 8}) {
      const auto got = stepped(pairs, options, threads);
      for (std::size_t i = 0; i < count; ++i) {
        EXPECT_EQ(got[i].left, expected[i].left) << count << " pairs, " << threads << " threads, pair " << i;
        EXPECT_EQ(got[i].right, expected[i].right);
        EXPECT_EQ(got[i].state, expected[i].state);
      }
    }
  }
}

TEST_P(ThreadCount, NorDoOtherPairsInTheCall) {
  OptimizerOptions options;
  options.name = GetParam();
  options.lr = 0.01;
  const auto all = some_pairs(6);
  const auto together = stepped(all, options, 4);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto alone = stepped({all[i]}, options, 2);
    EXPECT_EQ(alone[0].left, together[i].left);
    EXPECT_EQ(alone[0].state, together[i].state);
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, ThreadCount, ::testing::Values(OptimizerKind::kLoraMuon, OptimizerKind::kAdamW),
                         [](const auto& which) { return which.param == OptimizerKind::kAdamW ? "AdamW" : "LoraMuon"; });

}  // namespace
}  // namespace lomu::testing

// The same bits from any number of threads, from any company and order of other pairs, and over an interruption.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>

#include "engine/optimizers/optimizer.h"
#include "tests/engine/optimizers/all_optimizers.h"

namespace lomu::testing {
namespace {

/// Many small pairs, and one long enough to be cut into several chunks.
std::vector<OwnedPair> some_pairs(std::size_t count, const NamedOptimizer& which) {
  std::mt19937_64 random(61);
  std::vector<OwnedPair> pairs;
  pairs.push_back(which.parameter(random, 3000, 2100, 16));
  while (pairs.size() < count)
    pairs.push_back(which.parameter(random, 70 + static_cast<std::int64_t>(pairs.size()), 50, 12));
  pairs.resize(count, pairs[0]);
  return pairs;
}

void step(std::vector<OwnedPair>& pairs, Optimizer& optimizer, double lr, std::int64_t first, std::int64_t last) {
  std::vector<PairView> views;
  for (OwnedPair& p : pairs) views.push_back(p.view());
  StepReport report;
  for (std::int64_t t = first; t <= last; ++t) optimizer.step(views, {t, lr / static_cast<double>(t), 1.0}, report);
}

std::vector<OwnedPair> stepped(std::vector<OwnedPair> pairs, const OptimizerOptions& options, int threads) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  const auto optimizer = make_optimizer(options);
  for (OwnedPair& p : pairs) p.give_state(*optimizer);
  step(pairs, *optimizer, options.lr, 1, 3);
  omp_set_num_threads(before);
  return pairs;
}

void expect_same(const OwnedPair& got, const OwnedPair& expected) {
  EXPECT_EQ(got.left, expected.left);
  EXPECT_EQ(got.right, expected.right);
  EXPECT_EQ(got.state, expected.state);
}

class Bits : public ::testing::TestWithParam<NamedOptimizer> {};

TEST_P(Bits, DoNotDependOnTheNumberOfThreads) {
  for (const std::size_t count : {1u, 3u, 20u}) {
    const auto pairs = some_pairs(count, GetParam());
    const auto expected = stepped(pairs, GetParam().options(), 1);
    for (const int threads : {2, 3, 8}) {
      const auto got = stepped(pairs, GetParam().options(), threads);
      for (std::size_t i = 0; i < count; ++i) {
        SCOPED_TRACE(std::to_string(count) + " pairs, " + std::to_string(threads) + " threads");
        expect_same(got[i], expected[i]);
      }
    }
  }
}

TEST_P(Bits, DoNotDependOnOtherPairsOrTheirOrder) {
  const auto all = some_pairs(6, GetParam());
  const auto together = stepped(all, GetParam().options(), 4);
  auto turned = all;
  std::reverse(turned.begin(), turned.end());
  turned = stepped(std::move(turned), GetParam().options(), 3);
  for (std::size_t i = 0; i < all.size(); ++i) {
    expect_same(stepped({all[i]}, GetParam().options(), 2)[0], together[i]);
    expect_same(turned[all.size() - 1 - i], together[i]);
  }
}

TEST_P(Bits, AreTheSameAfterAnInterruption) {
  const OptimizerOptions options = GetParam().options();
  const auto whole_optimizer = make_optimizer(options);
  std::vector<OwnedPair> whole = some_pairs(3, GetParam());
  for (OwnedPair& p : whole) p.give_state(*whole_optimizer);
  whole[1].left_started_zero = !GetParam().dense_alone;  // so that damping is on
  std::vector<OwnedPair> halves = whole;
  step(whole, *whole_optimizer, options.lr, 1, 6);

  step(halves, *make_optimizer(options), options.lr, 1, 3);
  std::vector<OwnedPair> resumed = some_pairs(3, GetParam());
  for (std::size_t i = 0; i < resumed.size(); ++i) {  // only what a checkpoint holds
    resumed[i].left = halves[i].left;
    resumed[i].right = halves[i].right;
    resumed[i].state = halves[i].state;
    resumed[i].left_started_zero = halves[i].left_started_zero;
  }
  step(resumed, *make_optimizer(options), options.lr, 4, 6);
  for (std::size_t i = 0; i < whole.size(); ++i) expect_same(resumed[i], whole[i]);
}

INSTANTIATE_TEST_SUITE_P(Optimizers, Bits, ::testing::ValuesIn(kAllOptimizers),
                         [](const auto& which) { return which.param.name; });

}  // namespace
}  // namespace lomu::testing

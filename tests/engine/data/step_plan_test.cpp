#include "engine/data/step_plan.h"

#include <gtest/gtest.h>

#include <map>

#include "kernels/error.h"
#include "kernels/philox.h"

namespace lomu {
namespace {

struct Data {
  std::vector<std::uint32_t> lengths;
  std::vector<std::uint32_t> supervised;
};

Data some_data(std::size_t n) {
  Data data;
  for (std::size_t i = 0; i < n; ++i) {
    data.lengths.push_back(2 + static_cast<std::uint32_t>(mix64(i) % 60));
    data.supervised.push_back(1 + data.lengths.back() / 3);
  }
  return data;
}

StepOptions options(std::uint32_t micro_batches, double epochs, std::uint64_t max_steps = 0) {
  return {.packing = {.seed = 3, .micro_batch_tokens = 256},
          .micro_batches = micro_batches,
          .epochs = epochs,
          .max_steps = max_steps};
}

TEST(StepPlan, EpochsVisitEveryExampleThatOften) {
  const Data data = some_data(500);
  StepPlan plan(data.lengths, data.supervised, options(7, 3));
  std::map<std::uint32_t, int> visits;
  std::uint64_t tokens = 0;
  std::uint64_t supervised = 0;
  for (std::uint64_t s = 0; s < plan.total_steps(); ++s) {
    const PlannedStep step = plan.step(s);
    EXPECT_FALSE(step.micro_batches.empty());
    if (s + 1 < plan.total_steps()) {
      EXPECT_EQ(step.micro_batches.size(), 7u);
    }
    tokens += step.tokens;
    supervised += step.supervised;
    for (const auto& m : step.micro_batches) {
      for (const auto e : m.examples) ++visits[e];
    }
  }
  EXPECT_EQ(visits.size(), 500u);
  for (const auto& [example, count] : visits) EXPECT_EQ(count, 3) << example;
  std::uint64_t all_tokens = 0;
  std::uint64_t all_supervised = 0;
  for (const auto n : data.lengths) all_tokens += n;
  for (const auto n : data.supervised) all_supervised += n;
  EXPECT_EQ(tokens, 3 * all_tokens);
  EXPECT_EQ(supervised, 3 * all_supervised);
  EXPECT_DOUBLE_EQ(plan.epochs_before(plan.total_steps()), 3.0);
  EXPECT_DOUBLE_EQ(plan.epochs_before(0), 0.0);
}

TEST(StepPlan, ResumeAtAnyStepSeesTheSameMicroBatches) {
  const Data data = some_data(300);
  StepPlan from_start(data.lengths, data.supervised, options(5, 0, 40));
  ASSERT_EQ(from_start.total_steps(), 40u);
  std::vector<PlannedStep> steps;
  for (std::uint64_t s = 0; s < 40; ++s) steps.push_back(from_start.step(s));
  EXPECT_GT(steps.back().micro_batches.back().epoch, 2u);
  for (const std::uint64_t s : {39u, 17u, 0u, 23u}) {
    StepPlan resumed(data.lengths, data.supervised, options(5, 0, 40));
    EXPECT_EQ(resumed.step(s).micro_batches, steps[s].micro_batches) << s;
    EXPECT_EQ(from_start.step(s).micro_batches, steps[s].micro_batches) << s;
  }
}

TEST(StepPlan, FractionsOfEpochsAndStepsLargerThanEpochs) {
  const Data data = some_data(100);
  const std::size_t per_epoch = make_epoch(data.lengths, {.seed = 3, .micro_batch_tokens = 256}).size();
  StepPlan half(data.lengths, data.supervised, options(1, 0.5));
  EXPECT_EQ(half.total_steps(), (per_epoch + 1) / 2);
  StepPlan wide(data.lengths, data.supervised, options(static_cast<std::uint32_t>(3 * per_epoch), 0, 2));
  EXPECT_EQ(wide.step(1).micro_batches.size(), 3 * per_epoch);
  EXPECT_GE(wide.step(1).micro_batches.back().epoch, 4u);
}

TEST(StepPlan, RefusesRunsThatCannotBe) {
  const Data data = some_data(10);
  EXPECT_THROW(StepPlan({}, {}, options(1, 1)), UsageError);
  EXPECT_THROW(StepPlan(data.lengths, data.supervised, options(0, 1)), UsageError);
  EXPECT_THROW(StepPlan(data.lengths, data.supervised, options(1, -1)), UsageError);
  EXPECT_THROW(StepPlan(data.lengths, data.supervised, options(1, 1e300)), UsageError);
  EXPECT_THROW(StepPlan(data.lengths, data.supervised, options(1, 1, ~0ull)), UsageError);
  StepPlan plan(data.lengths, data.supervised, options(1, 1));
  EXPECT_THROW(plan.step(plan.total_steps()), UsageError);
}

TEST(CheckRanks, SaysWhatWouldFit) {
  EXPECT_NO_THROW(check_ranks(4, 4));
  try {
    check_ranks(8, 4);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(), "8 ranks share a step of 4 micro-batches: 4 would have nothing to do");
    EXPECT_NE(error.hint().find("at least 8 micro-batches"), std::string::npos);
  }
}

}  // namespace
}  // namespace lomu

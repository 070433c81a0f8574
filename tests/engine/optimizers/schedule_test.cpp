// Learning rates at the ends and corners of every schedule.
#include "engine/optimizers/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "kernels/error.h"

namespace lomu {
namespace {

ScheduleOptions with(ScheduleKind kind, std::int64_t warmup) {
  ScheduleOptions options;
  options.kind = kind;
  options.warmup_steps = warmup;
  return options;
}

TEST(Schedule, WarmsUpInEqualStepsToThePeak) {
  for (const ScheduleKind kind :
       {ScheduleKind::kConstant, ScheduleKind::kLinear, ScheduleKind::kCosine, ScheduleKind::kWarmupStableDecay}) {
    const ScheduleOptions options = with(kind, 4);
    EXPECT_DOUBLE_EQ(learning_rate(options, 2.0, 1, 20), 0.5);
    EXPECT_DOUBLE_EQ(learning_rate(options, 2.0, 4, 20), 2.0);
    EXPECT_DOUBLE_EQ(learning_rate(options, 2.0, 5, 20), 2.0);
  }
}

TEST(Schedule, ConstantStaysConstant) {
  EXPECT_EQ(learning_rate(with(ScheduleKind::kConstant, 0), 0.1, 1000, 10), 0.1);
}

TEST(Schedule, LinearLosesTheSameEveryStepAndNeverReachesZeroInTheRun) {
  const ScheduleOptions options = with(ScheduleKind::kLinear, 0);
  for (std::int64_t step = 1; step <= 10; ++step) {
    EXPECT_NEAR(learning_rate(options, 1.0, step, 10), 1.0 - static_cast<double>(step - 1) / 10.0, 1e-15);
  }
  EXPECT_EQ(learning_rate(options, 1.0, 11, 10), 0.0);
}

TEST(Schedule, CosineIsHalfwayAtHalfTime) {
  const ScheduleOptions options = with(ScheduleKind::kCosine, 10);
  EXPECT_NEAR(learning_rate(options, 1.0, 61, 110), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(options, 1.0, 110, 110), 0.5 * (1 + std::cos(std::numbers::pi * 0.99)), 1e-12);
}

TEST(Schedule, WarmupStableDecayIsFlatAndThenFalls) {
  ScheduleOptions options = with(ScheduleKind::kWarmupStableDecay, 10);
  options.decay_ratio = 0.2;
  options.min_lr_ratio = 0.1;
  EXPECT_EQ(learning_rate(options, 1.0, 50, 100), 1.0);
  EXPECT_EQ(learning_rate(options, 1.0, 81, 100), 1.0);
  EXPECT_NEAR(learning_rate(options, 1.0, 91, 100), 0.1 + 0.9 * 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(options, 1.0, 100, 100), 0.1 + 0.9 * 0.05, 1e-12);
}

TEST(Schedule, MinimumIsAShareOfThePeak) {
  ScheduleOptions options = with(ScheduleKind::kLinear, 0);
  options.min_lr_ratio = 0.25;
  EXPECT_NEAR(learning_rate(options, 4.0, 1000, 10), 1.0, 1e-15);
}

TEST(Schedule, WarmupCanBeAShareOfTheRun) {
  ScheduleOptions options = with(ScheduleKind::kConstant, 0);
  options.warmup_ratio = 0.1;
  EXPECT_DOUBLE_EQ(learning_rate(options, 1.0, 1, 95), 0.1);  // 9.5 steps, rounded up
}

TEST(Schedule, WarmupMayBeLongerThanTheRun) {
  EXPECT_DOUBLE_EQ(learning_rate(with(ScheduleKind::kCosine, 100), 1.0, 10, 10), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(with(ScheduleKind::kCosine, 10), 1.0, 10, 10), 1.0);
}

TEST(Schedule, ImpossibleOptionsAreRefused) {
  ScheduleOptions options;
  EXPECT_NO_THROW(check_schedule(options));
  options.decay_ratio = 1.5;
  EXPECT_THROW(check_schedule(options), UsageError);
  options = {};
  options.warmup_steps = -1;
  EXPECT_THROW(check_schedule(options), UsageError);
}

}  // namespace
}  // namespace lomu

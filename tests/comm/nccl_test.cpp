// Gradients over NCCL: every bit as one rank has it, on as many GPUs as there are and on one; and ranks that fail.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/comm/processes.h"

namespace lomu {
namespace {

using processes::Outcome;
using processes::run;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

class NcclRanks : public testing::Test {
 protected:
  void SetUp() override {
    devices_ = std::atoi(run(fmt::format("{} devices", LOMU_NCCL_PROBE)).output.c_str());
    if (devices_ == 0) GTEST_SKIP() << "no CUDA device can be used here";
  }
  static Outcome ranks(int count, const std::string& mode, const std::string& environment = {}) {
    return run(fmt::format("env OMP_NUM_THREADS=1 {} timeout 120 {} -n {} {} {}", environment, LOMU_RANKS, count,
                           LOMU_NCCL_PROBE, mode));
  }

  int devices_ = 0;
};

TEST_F(NcclRanks, GiveTheBitsOfTheTreeForEveryWorldSize) {
  for (const int count : {1, 2, 3}) {
    const Outcome outcome = ranks(count, "tree");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(fmt::format("every bit is right, {} ranks", count)));
  }
  if (devices_ > 3) {
    EXPECT_THAT(ranks(devices_, "tree").output, HasSubstr("every bit is right"));
  }
}

TEST_F(NcclRanks, AddRightInTheLibrarysOrder) {
  for (const int count : {1, 2, 3}) {
    EXPECT_THAT(ranks(count, "library").output, HasSubstr(fmt::format("every bit is right, {} ranks", count)));
  }
}

TEST_F(NcclRanks, ARankThatHangsMeetsTheDeadlineWithRankOperationAndStep) {
  const Outcome outcome = ranks(2, "hang");
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_LT(outcome.seconds, 30.0);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("rank 0 of 2"), HasSubstr("gradients to owners, bucket 1"), HasSubstr("at step 1")));
}

TEST_F(NcclRanks, ASlowRankIsWarnedOfAndWaitedFor) {
  const Outcome outcome = ranks(2, "slow");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("has waited 0.5 s for other ranks; it goes on"), HasSubstr("every bit")));
}

TEST_F(NcclRanks, AKilledRankEndsAllWithinFifteenSeconds) {
  const Outcome outcome = ranks(3, "kill");
  EXPECT_NE(outcome.exit_code, 0);
  // Beside the start, which takes its time.
  EXPECT_LT(outcome.seconds, 25.0);
}

TEST_F(NcclRanks, TwoRanksOnOneGpuAreRefused) {
  const int count = devices_ + 1;
  const Outcome outcome = ranks(count, "same");
  EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("use the same GPU"), HasSubstr("start one rank for each GPU of a machine")));
}

}  // namespace
}  // namespace lomu

// `lomu report` of real runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Report, OfTwoRunsIsOnePage) {
  const TinyRun run;
  ASSERT_EQ(run.train("one", {"telemetry.every=2"}).code, 0);
  ASSERT_EQ(run.train("two", {"optimizer.name=adamw", "telemetry.every=3"}).code, 0);
  const Outcome outcome = run.lomu({"report", "one", "two", "--out", "both.html"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(run.read("both.html"),
              AllOf(HasSubstr("2 runs"), HasSubstr("one, by layer"), HasSubstr("two, by layer"),
                    HasSubstr("<td>optimizer.name</td><td>lora_muon</td><td>adamw</td>"), HasSubstr("peak memory"),
                    HasSubstr("||dW|| over eta"), HasSubstr("whitened momentum")));
}

TEST(Report, OfNoRunIsRefused) {
  const TinyRun run;
  const Outcome outcome = run.lomu({"report", "model"});
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("the folder holds no run"), HasSubstr("output.dir")));
}

}  // namespace
}  // namespace lomu

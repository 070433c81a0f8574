// `lomu plan` against what the run of the same job then takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// "activations        1.5 MB now": of the ledger that a run prints before its first step.
double megabytes_of(const std::string& log, const std::string& scope) {
  const std::size_t at = log.find("\n  " + scope);
  return at == std::string::npos ? -1 : std::strtod(log.c_str() + at + 3 + scope.size(), nullptr);
}

TEST(Plan, SaysByLevelWhatARunTakes) {
  const TinyRun run;
  const Outcome planned =
      run.lomu({"plan", "job.yaml", "--json", "training.micro_batch_tokens=1024", "data.max_length=64"});
  ASSERT_EQ(planned.code, 0) << planned.err;
  const auto plan = nlohmann::json::parse(planned.out);
  double above = 1e18;
  for (const char* level : {"none", "norms", "mlp", "block"}) {
    EXPECT_LT(plan["levels"][level]["total"], above) << level;
    above = plan["levels"][level]["total"];
  }
  EXPECT_EQ(plan["auto"], "norms") << "on a CPU with memory for a model of a megabyte";
  EXPECT_TRUE(plan["fits"]);
  EXPECT_TRUE(run.list("out").empty());

  for (const std::string level : {"norms", "block"}) {
    const Outcome outcome = run.train("out-" + level, {"training.micro_batch_tokens=1024", "data.max_length=64",
                                                       "training.steps=1", "training.recompute=" + level});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    for (const std::string scope : {"weights", "adapters", "optimizer", "activations", "workspace", "comm"}) {
      // The ledger is printed in tenths of a megabyte, and the longest record is a little shorter than it may be.
      EXPECT_NEAR(megabytes_of(outcome.err, scope), plan["levels"][level][scope].get<double>() / 1e6, 0.2)
          << level << ", " << scope;
    }
  }
}

TEST(Plan, OfOneRankIsMadeOnAMachineWithSeveralGpus) {
  const TinyRun run;
  const Outcome outcome = run.lomu({"plan", "job.yaml", "runtime.device=cuda"}, {.emulated_gpus = 4});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("GPU 0"), HasSubstr("can be planned with: auto is none")));
}

TEST(Plan, IsATableForPeopleAndNeedsNoWeights) {
  const TinyRun run;
  std::filesystem::remove(run.path("model/model.safetensors"));
  EXPECT_NE(run.lomu({"plan", "job.yaml"}).code, 0);
  const Outcome outcome = run.lomu({"plan", "job.yaml", "model.path=model/config.json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              AllOf(HasSubstr("block"), HasSubstr("activations"), HasSubstr("can be planned with: auto is")));
}

}  // namespace
}  // namespace lomu

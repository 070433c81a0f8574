// Telemetry of whole runs: where it lands, that it changes nothing, and that it is the same on any number of ranks.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::vector<json> steps_of(const TinyRun& run, const std::string& out) {
  std::vector<json> steps;
  std::istringstream lines(run.read(out + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) steps.push_back(json::parse(line));
  return steps;
}

/// The telemetry of every step of a run with these settings.
std::vector<json> telemetry_of(const TinyRun& run, const std::string& out, std::vector<std::string> settings,
                               const Launch& launch = {}) {
  const Outcome outcome = run.train(out, settings, launch);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  std::vector<json> all;
  for (const json& step : steps_of(run, out)) {
    if (step.contains("pairs")) all.push_back(step["pairs"]);
  }
  return all;
}

TEST(Telemetry, IsTheSameOnAnyNumberOfRanks) {
  const TinyRun run;
  for (const std::string optimizer : {"lora_muon", "adamw"}) {
    const std::vector<std::string> settings = {"telemetry.every=2", "optimizer.name=" + optimizer};
    const std::vector<json> alone = telemetry_of(run, optimizer, settings);
    ASSERT_EQ(alone.size(), 3u);
    for (const int ranks : {2, 3}) {
      std::vector<std::string> shared = settings;
      shared.push_back(fmt::format("runtime.ranks_in_process={}", ranks));
      EXPECT_EQ(telemetry_of(run, fmt::format("{}-{}", optimizer, ranks), shared), alone) << ranks << " ranks";
    }
  }
}

TEST(Telemetry, HasEveryPairAndItsFigures) {
  const TinyRun run;
  const std::vector<json> muon = telemetry_of(run, "muon", {"telemetry.every=3", "optimizer.lr=0.02"});
  ASSERT_EQ(muon.size(), 2u);
  std::size_t pairs = 0;
  for (const json& pair : muon.back()) {
    EXPECT_THAT(pair["name"].get<std::string>(), HasSubstr("layers."));
    EXPECT_GT(pair["product_largest"].get<double>(), 0.0);
    EXPECT_GE(pair["condition_right"].get<double>(), 1.0);
    // Both first-order terms are half of eta at most, and the other one is bounded by the damping.
    EXPECT_LE(pair["step_size"].get<double>(), 1.0 + pair["cross_term"].get<double>() + 1e-9);
    EXPECT_LE(pair["cross_term"].get<double>(), 0.05 + 1e-9);
    EXPECT_LE(pair["momentum_left_largest"].get<double>(), 1.0 + 1e-12);
    EXPECT_GE(pair["cholesky_raises"].get<double>(), 0.0);
    ++pairs;
  }
  EXPECT_GT(pairs, 7u);
  const std::vector<json> adam = telemetry_of(run, "adam", {"telemetry.every=3", "optimizer.name=adamw"});
  ASSERT_EQ(adam.size(), 2u);
  EXPECT_EQ(adam.back().size(), pairs);
  EXPECT_TRUE(adam.back()[0].contains("product_largest"));
  EXPECT_TRUE(adam.back()[0].contains("relative_step_left"));
  EXPECT_FALSE(adam.back()[0].contains("momentum_left_median"));
}

TEST(Telemetry, ChangesNothingAndIsNoOtherJob) {
  const TinyRun run;
  EXPECT_TRUE(telemetry_of(run, "off", {"training.save_every=3"}).empty());
  EXPECT_EQ(telemetry_of(run, "on", {"training.save_every=3", "telemetry.every=1"}).size(), 6u);
  EXPECT_TRUE(run.adapter("off") == run.adapter("on"));
}

TEST(Telemetry, WorksBesideWeightsTrainedInFull) {
  const TinyRun run;
  const std::vector<json> all =
      telemetry_of(run, "full", {"telemetry.every=6", "adapter.full=norms", "optimizer.name=adamw"});
  ASSERT_EQ(all.size(), 1u);
  bool found = false;
  for (const json& pair : all.front()) {
    if (pair["name"].get<std::string>().find("norm") == std::string::npos) continue;
    found = true;
    EXPECT_TRUE(pair.contains("relative_step_left"));
    EXPECT_FALSE(pair.contains("product_largest"));
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace lomu

// A tiny model learns, and the run says so: losses, metrics, the resolved configuration, the summary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<json> lines_of(const std::string& text) {
  std::vector<json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

/// Mean loss, in nats, of the best guess that looks at nothing but how often each byte occurs in the answers.
double loss_without_context(const std::string& records) {
  std::map<char, double> counts;
  double total = 0;
  for (const json& record : lines_of(records)) {
    const std::string answer =
        record["messages"][1]["content"].get<std::string>() + "\n";  // stands for the end of turn
    for (const char c : answer) ++counts[c];
    total += static_cast<double>(answer.size());
  }
  double loss = 0;
  for (const auto& [byte, count] : counts) loss -= count / total * std::log(count / total);
  return loss;
}

struct Rate {
  std::string optimizer;
  std::string lr;
};
class Learning : public testing::TestWithParam<Rate> {};

TEST_P(Learning, BringsTheLossBelowWhatNeedsNoContext) {
  const TinyRun run;
  const Outcome outcome = run.train("out", {"optimizer.name=" + GetParam().optimizer, "optimizer.lr=" + GetParam().lr,
                                            "training.steps=120", "adapter.rank=8", "data.validation=test.jsonl"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json summary = json::parse(run.read("out/summary.json"));
  const std::string records = run.read("train.jsonl");
  // A random model begins worse than a guess among all tokens. A model that has learned no more than which bytes occur
  // ends at loss_without_context(); below it, it must have used the words before.
  EXPECT_GT(summary["first_loss"].get<double>(), std::log(288.0));
  EXPECT_LT(summary["last_loss"].get<double>(), loss_without_context(records));
  EXPECT_GT(summary["validation_before"].get<double>(), std::log(288.0));
  EXPECT_LT(summary["validation_after"].get<double>(), loss_without_context(records));
}

INSTANTIATE_TEST_SUITE_P(Optimizers, Learning,
                         testing::Values(Rate{"lora_muon", "0.1"}, Rate{"adamw", "0.01"}, Rate{"muon_factors", "0.02"},
                                         Rate{"spectron", "0.2"}, Rate{"lora_rite", "0.005"},
                                         Rate{"lora_rite_core", "0.1"}, Rate{"scaled_adamw", "0.01"},
                                         Rate{"lora_plus", "0.002"}),
                         [](const auto& test) { return test.param.optimizer; });

TEST(TrainRun, WritesAnObjectAStepAndWhatItWasTold) {
  const TinyRun run;
  const Outcome outcome = run.train(
      "out", {"data.validation_split=0.1", "training.validation_every=4", "training.schedule.warmup_steps=2"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(run.list("out"), ElementsAre("adapter", "checkpoints", "config.yaml", "metrics.jsonl", "summary.json"));

  const std::vector<json> metrics = lines_of(run.read("out/metrics.jsonl"));
  ASSERT_EQ(metrics.size(), 6u);
  double epoch = -1;
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const json& m = metrics[i];
    std::vector<std::string> keys;
    for (const auto& [key, value] : m.items()) {
      keys.push_back(key);
      EXPECT_TRUE(value.is_number()) << key;
    }
    const bool validated = i == 3 || i == 5;  // every fourth step and the last
    EXPECT_EQ(m.contains("validation_loss"), validated) << "step " << i + 1;
    for (const char* key : {"step", "epoch", "loss", "lr", "tokens", "supervised", "tokens_per_second", "seconds",
                            "optimizer_seconds", "grad_norm", "update_norm", "max_relative_step", "cholesky_raises"}) {
      EXPECT_TRUE(m.contains(key)) << key;
    }
    EXPECT_EQ(keys.size(), validated ? 14u : 13u);
    EXPECT_EQ(m["step"], i + 1);
    EXPECT_GT(m["epoch"].get<double>(), epoch);
    epoch = m["epoch"].get<double>();
    EXPECT_GT(m["loss"].get<double>(), 0.0);
    EXPECT_GT(m["supervised"].get<int>(), 0);
    EXPECT_LE(m["tokens"].get<int>(), 4 * 128);
    EXPECT_GT(m["update_norm"].get<double>(), 0.0);
  }
  EXPECT_DOUBLE_EQ(metrics[0]["lr"].get<double>(), 0.025) << "half-way up";
  EXPECT_DOUBLE_EQ(metrics[1]["lr"].get<double>(), 0.05);

  const json summary = json::parse(run.read("out/summary.json"));
  EXPECT_EQ(summary["steps"], 6);
  EXPECT_EQ(summary["first_loss"], metrics.front()["loss"]);
  EXPECT_EQ(summary["last_loss"], metrics.back()["loss"]);
  EXPECT_EQ(summary["validation_after"], metrics.back()["validation_loss"]);
  EXPECT_EQ(summary["adapter"], "out/adapter");
}

TEST(TrainRun, ItsSavedConfigurationRepeatsIt) {
  const TinyRun run;
  ASSERT_EQ(run.train("out", {"adapter.targets=q,down", "adapter.layers=1-2", "optimizer.lr=0.03"}).code, 0);
  const Outcome again = run.lomu({"train", "out/config.yaml", "output.dir=again"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_TRUE(run.adapter("again") == run.adapter("out"));
}

TEST(TrainRun, TellsTheRunToPeople) {
  const TinyRun run;
  const Outcome outcome = run.train("out", {"data.validation=test.jsonl"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  for (const char* part : {"train.jsonl: 60 examples", "step 1/6", "step 6/6", "loss", "tokens/s", "lr", "ETA",
                           "validation loss", "peak memory", "lomu generate --model model --adapter out/adapter"}) {
    EXPECT_THAT(outcome.err, HasSubstr(part));
  }
  EXPECT_EQ(outcome.err.find('\r'), std::string::npos) << "plain lines when not a terminal";
}

TEST(TrainRun, GoesOnFromAnAdapter) {
  const TinyRun run;
  ASSERT_EQ(run.train("first", {"optimizer.lr=0.05"}).code, 0);
  const Outcome outcome =
      run.train("second", {"adapter.from=first", "adapter.dropout=0.1", "data.validation=test.jsonl"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(json::parse(run.read("second/adapter/adapter_config.json"))["lora_dropout"], 0.1) << "of this run";
  const Outcome zero = run.train("zero", {"data.validation=test.jsonl"});
  EXPECT_LT(json::parse(run.read("second/summary.json"))["validation_before"].get<double>(),
            json::parse(run.read("zero/summary.json"))["validation_before"].get<double>());
}

TEST(TrainRun, BalancedFactorsTrainWithoutDamping) {
  const TinyRun run;
  const Outcome outcome = run.train("out", {"adapter.init=balanced", "optimizer.damping=off"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(run.train("zero", {"optimizer.damping=off"}).code, 2);
}

}  // namespace
}  // namespace lomu

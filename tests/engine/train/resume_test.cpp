// Runs that were interrupted: they go on from their last whole checkpoint to the adapter of a run that was not, on any
// number of ranks; and what must not be gone on from is refused, with nothing touched.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// Seven steps with a checkpoint after each third, over two epochs of another order each, with dropout: everything that
// a resumed run must find again.
const std::vector<std::string> kJob = {"training.steps=7", "training.save_every=3", "adapter.dropout=0.1",
                                       "training.micro_batches=5"};

std::vector<std::string> with(std::vector<std::string> settings, const std::vector<std::string>& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

class Resume : public testing::Test {
 protected:
  /// A run in out/ as it was after its checkpoint of step 6, when step 7 had been taken but nothing was exported.
  void interrupt() {
    fs::remove_all(run_.path("out/checkpoints/step-00000007"));
    fs::remove_all(run_.path("out/adapter"));
    fs::remove(run_.path("out/summary.json"));
  }

  void whole_run(const std::vector<std::string>& settings) {
    const Outcome outcome = run_.train("out", settings);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    ASSERT_THAT(run_.list("out/checkpoints"), ElementsAre("step-00000006", "step-00000007"));
    adapter_ = run_.adapter("out");
    ASSERT_FALSE(adapter_.empty());
  }

  Outcome resume(const std::vector<std::string>& settings, const Launch& launch = {}) {
    return run_.train("out", with(settings, {"--resume"}), launch);
  }

  std::string metrics_without_times() {
    std::string kept;
    const std::string text = run_.read("out/metrics.jsonl");
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = text.find('\n', at);
      const std::string line = text.substr(at, end - at);
      const std::size_t norm = line.find("\"grad_norm\"");
      kept += line.substr(0, line.find("\"tokens_per_second\"")) + line.substr(std::min(norm, line.size())) + "\n";
      at = end == std::string::npos ? text.size() : end + 1;
    }
    return kept;
  }

  TinyRun run_;
  std::string adapter_;
};

class ResumeWith : public Resume, public testing::WithParamInterface<std::string> {
 protected:
  static std::vector<std::string> job() {
    if (GetParam() == "lora_rite") return with(kJob, {"optimizer.name=lora_rite", "optimizer.lr=0.002"});
    if (GetParam() == "adamw") return with(kJob, {"optimizer.name=adamw", "optimizer.lr=0.01"});
    return with(kJob, {"optimizer.lr=0.02", "optimizer.balance_every=2"});
  }
};

TEST_P(ResumeWith, GivesTheBitsOfAnUninterruptedRunOnOtherRanks) {
  whole_run(job());
  const std::string metrics = metrics_without_times();
  for (const char* ranks : {"1", "2", "3"}) {
    interrupt();
    const Outcome outcome = resume(with(job(), {std::string("runtime.ranks_in_process=") + ranks}));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(run_.adapter("out") == adapter_) << ranks << " ranks";
    EXPECT_EQ(metrics_without_times(), metrics);
  }
}

TEST_P(ResumeWith, MpiRanksGoOnFromWhatOneProcessBegan) {
  whole_run(job());
  for (const int ranks : {2, 4}) {
    interrupt();
    const Outcome outcome = resume(job(), {.ranks = ranks});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(run_.adapter("out") == adapter_) << ranks << " ranks";
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, ResumeWith, testing::Values("lora_muon", "adamw", "lora_rite"),
                         [](const auto& test) { return test.param; });

TEST_F(Resume, GivesTheBitsOfAnUninterruptedRunWithParameterGroups) {
  run_.write("job.yaml", run_.read("job.yaml") +
                             "optimizer:\n"
                             "  lr: 0.02\n"
                             "  groups:\n"
                             "    - {match: [q, k], name: adamw, lr: 0.01}\n"
                             "    - {match: [\"model.layers.1.*\"], name: lora_rite, lr: 0.002}\n");
  whole_run(kJob);
  for (const char* ranks : {"1", "3"}) {
    interrupt();
    const Outcome outcome = resume(with(kJob, {std::string("runtime.ranks_in_process=") + ranks}));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(run_.adapter("out") == adapter_) << ranks << " ranks";
  }
  interrupt();
  const Outcome outcome = resume(with(kJob, {"optimizer.groups[0].lr=0.02"}));
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("other settings"));
}

TEST_F(Resume, GoesOnAtAnotherLevelOfRecomputation) {
  whole_run(with(kJob, {"training.recompute=none"}));
  for (const std::string level : {"auto", "norms", "mlp", "block"}) {
    interrupt();
    const Outcome outcome = resume(with(kJob, {"training.recompute=" + level, "runtime.ranks_in_process=2"}));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(run_.adapter("out") == adapter_) << level;
    if (level != "auto") {
      EXPECT_THAT(outcome.err, HasSubstr("recompute  " + level));
      EXPECT_THAT(run_.read("out/summary.json"), HasSubstr("\"recompute\": \"" + level + "\""));
    }
  }
}

TEST_F(Resume, GoesOnAfterAKillAtAnyMoment) {
  const std::vector<std::string> job = {"training.steps=120", "training.save_every=20"};
  const Outcome whole = run_.train("whole", job);
  ASSERT_EQ(whole.code, 0) << whole.err;

  const auto process = run_.start(train_arguments("out", job));
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (run_.list("out/checkpoints").size() < 2 && std::chrono::steady_clock::now() < patience) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  process->kill(SIGKILL);
  ASSERT_EQ(process->wait().signal, SIGKILL);
  ASSERT_TRUE(run_.list("out/adapter").empty()) << "it had ended already";

  const Outcome outcome = resume(job);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(run_.adapter("out") == run_.adapter("whole"));
  const std::string metrics = run_.read("out/metrics.jsonl");
  EXPECT_EQ(std::count(metrics.begin(), metrics.end(), '\n'), 120);
}

TEST_F(Resume, RefusesADamagedCheckpointByName) {
  whole_run(kJob);
  const std::string state = "out/checkpoints/step-00000006/state.safetensors";
  const std::string good = run_.read(state);
  interrupt();

  run_.patch(state, good.size() / 2, std::string(1, static_cast<char>(good[good.size() / 2] ^ 1)));
  Outcome outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("the checkpoint is damaged"), HasSubstr(state)));

  fs::resize_file(run_.path(state), good.size() / 2);
  outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr(state));

  fs::remove(run_.path(state));
  outcome = resume(with(kJob, {"runtime.ranks_in_process=2"}));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr(state));

  run_.write(state, good);
  run_.write("out/checkpoints/step-00000006/checkpoint.json", "{\"format\": 1, \"step\": ");
  outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("out/checkpoints/step-00000006/checkpoint.json"));
  EXPECT_TRUE(run_.list("out/adapter").empty());
}

TEST_F(Resume, RefusesOtherSettingsModelOrDataAndTouchesNothing) {
  whole_run(kJob);
  interrupt();
  const std::string config = run_.read("out/config.yaml");
  const std::string metrics = run_.read("out/metrics.jsonl");

  Outcome outcome = resume(with(kJob, {"optimizer.lr=0.03"}));
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("other settings"), HasSubstr("step-00000006")));

  const std::string data = run_.read("train.jsonl");
  run_.write("train.jsonl", reversal_records(60, 3));
  outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("other data"));
  run_.write("train.jsonl", data);

  const std::string weights = run_.read("model/model.safetensors");
  run_.patch("model/model.safetensors", weights.size() - 1, "\x3e");
  outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("another base model"));
  run_.write("model/model.safetensors", weights);

  EXPECT_EQ(run_.read("out/config.yaml"), config);
  EXPECT_EQ(run_.read("out/metrics.jsonl"), metrics);
  outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(run_.adapter("out") == adapter_);
}

TEST_F(Resume, OfARunThatHasFinishedIsRefusedAndLeavesItsResults) {
  whole_run(kJob);
  const std::string summary = run_.read("out/summary.json");
  const Outcome outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("the run has finished"));
  EXPECT_EQ(run_.read("out/summary.json"), summary);
  EXPECT_TRUE(run_.adapter("out") == adapter_);
}

TEST_F(Resume, ExportsWhatARunLostAfterItsLastStep) {
  whole_run(kJob);
  const std::string losses = run_.read("out/summary.json").substr(0, run_.read("out/summary.json").find("\"tokens\""));
  fs::remove_all(run_.path("out/adapter"));
  fs::remove(run_.path("out/summary.json"));
  const Outcome outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(run_.adapter("out") == adapter_);
  EXPECT_THAT(run_.read("out/summary.json"), HasSubstr(losses));
}

TEST_F(Resume, NeedsARunWithACheckpoint) {
  Outcome outcome = resume(kJob);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("there is no run to resume"));
  EXPECT_FALSE(fs::exists(run_.path("out")));

  ASSERT_EQ(run_.train("out", {"training.save_every=0"}).code, 0);
  outcome = resume({"training.save_every=0"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("no checkpoint"));
}

}  // namespace
}  // namespace lomu

// What goes wrong in a run: one clear message, exit code 1 or 2, nothing half-written, and no rank left waiting.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

// Two cores and whatever else runs on them; a rank that waits for a lost one would take 300.
constexpr double kSeconds = 20;

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

class RunFailure : public testing::Test {
 protected:
  /// Exit code, one message that holds all of `parts`, and nothing that looks like a result.
  void expect_failure(const Outcome& outcome, int code, const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_FALSE(outcome.timed_out);
    EXPECT_LT(outcome.seconds, kSeconds);
    for (const std::string& part : parts) {
      EXPECT_THAT(outcome.err, HasSubstr(part));
    }
    EXPECT_EQ(count("\n" + outcome.err, "\nlomu: "), 1u) << outcome.err;
    EXPECT_THAT(run_.list("out/adapter"), IsEmpty());
    for (const std::string& name : run_.list("out")) EXPECT_FALSE(name.starts_with(".")) << name;
  }

  void put_weight(const std::string& tensor, float value) { run_.put("model/model.safetensors", tensor, value); }

  TinyRun run_;
};

// ---- numbers -------------------------------------------------------------------------------------------------------

TEST_F(RunFailure, ALossThatIsNotFiniteNamesStepAndFirstBadTensor) {
  put_weight("model.layers.1.mlp.down_proj.weight", std::numeric_limits<float>::quiet_NaN());
  expect_failure(run_.train("out"), 3, {"the loss is not finite", "step 1", "block 1"});
  put_weight("model.layers.1.self_attn.q_proj.weight", std::numeric_limits<float>::infinity());
  fs::remove_all(run_.path("out"));
  expect_failure(run_.train("out", {"runtime.ranks_in_process=3"}), 3, {"the loss is not finite", "step 1", "block 1"});
}

TEST_F(RunFailure, MpiALossThatIsNotFiniteEndsAllRanksWithOneMessage) {
  put_weight("model.layers.1.mlp.down_proj.weight", std::numeric_limits<float>::quiet_NaN());
  expect_failure(run_.train("out", {}, {.ranks = 3}), 3, {"the loss is not finite", "step 1", "block 1"});
}

TEST_F(RunFailure, AValidationLossThatIsNotFiniteStopsTheRunBeforeAnythingIsTrained) {
  put_weight("model.layers.0.mlp.up_proj.weight", std::numeric_limits<float>::quiet_NaN());
  expect_failure(run_.train("out", {"data.validation=test.jsonl"}), 3,
                 {"the validation loss is not finite", "block 0"});
}

TEST_F(RunFailure, FactorsThatOverflowInTheLastStepAreNotExported) {
  // The last step has no next one whose loss would show it. With rows of A this short, a step of B that moves the
  // product by lr is beyond the range of f32.
  ASSERT_EQ(run_.train("first", {"training.steps=1"}).code, 0);
  const std::string weights = "first/adapter/adapter_model.safetensors";
  const std::string factor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  run_.put(weights, factor, 0, 0, 4 * 64);
  for (std::size_t row = 0; row < 4; ++row) run_.put(weights, factor, 1e-34f, row * 65, row * 65 + 1);
  for (const char* every : {"0", "1"}) {
    fs::remove_all(run_.path("out"));
    const Outcome outcome =
        run_.train("out", {"adapter.from=first", "training.steps=1", "optimizer.lr=1e6",
                           "training.schedule.name=constant", std::string("training.save_every=") + every});
    expect_failure(outcome, 3, {"the adapter is not finite", "step 1", "layers.0.self_attn.q_proj.lora_B"});
    EXPECT_THAT(run_.list("out/checkpoints"), IsEmpty());
  }
}

// ---- ranks ---------------------------------------------------------------------------------------------------------

TEST_F(RunFailure, AGroupThatMeansNoParameterIsNamedAndNothingIsTrained) {
  run_.write("job.yaml", run_.read("job.yaml") + "optimizer: {groups: [{match: norm, name: adamw}]}\n");
  for (const char* ranks : {"1", "2"}) {
    const Outcome outcome = run_.train("out", {std::string("runtime.ranks_in_process=") + ranks});
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_THAT(outcome.err, testing::AllOf(HasSubstr("the pattern `norm` means none of the"),
                                            HasSubstr("optimizer.groups[0].match")));
    EXPECT_TRUE(run_.adapter("out").empty());
  }
}

TEST_F(RunFailure, MoreRanksThanMicroBatchesAreRefused) {
  expect_failure(run_.train("out", {"runtime.ranks_in_process=5"}), 2, {"micro-batches"});
  EXPECT_FALSE(fs::exists(run_.path("out")));
}

TEST_F(RunFailure, MpiMoreRanksThanMicroBatchesAreRefusedOnce) {
  expect_failure(run_.train("out", {"training.micro_batches=2"}, {.ranks = 3}), 2, {"micro-batches"});
  EXPECT_FALSE(fs::exists(run_.path("out")));
}

TEST_F(RunFailure, MpiWhatOnlyRankZeroSeesEndsAll) {
  // Only rank 0 looks at the output folder and only it writes into it.
  fs::create_directory(run_.path("out"));
  run_.write("out/mine.txt", "x");
  expect_failure(run_.train("out", {}, {.ranks = 3}), 2, {"the output folder exists and is not empty"});
  EXPECT_EQ(run_.list("out"), std::vector<std::string>{"mine.txt"});
}

TEST_F(RunFailure, MpiBadDataEndsAllWithOneMessage) {
  run_.write("train.jsonl", run_.read("train.jsonl") + "{\"messages\": oh}\n");
  expect_failure(run_.train("out", {}, {.ranks = 3}), 1, {"train.jsonl:61"});
}

TEST_F(RunFailure, MpiAKilledRankEndsTheJob) {
  for (const std::size_t victim : {0u, 2u}) {
    fs::remove_all(run_.path("out"));
    const auto process =
        run_.start(train_arguments("out", {"training.steps=100000", "training.save_every=5"}), {.ranks = 3});
    const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (run_.list("out/checkpoints").empty() && std::chrono::steady_clock::now() < patience) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    const std::vector<pid_t> ranks = process->children();
    ASSERT_EQ(ranks.size(), 3u);
    const auto killed = std::chrono::steady_clock::now();
    ASSERT_EQ(::kill(ranks[victim], SIGKILL), 0);
    const Outcome outcome = process->wait();
    EXPECT_LT(std::chrono::steady_clock::now() - killed, std::chrono::seconds(10));
    EXPECT_NE(outcome.code, 0);
    const auto any_runs = [&] { return std::any_of(ranks.begin(), ranks.end(), Process::runs); };
    while (any_runs() && std::chrono::steady_clock::now() - killed < std::chrono::seconds(10)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_FALSE(any_runs()) << "a rank lives on";
    EXPECT_THAT(run_.list("out/adapter"), IsEmpty());
  }
}

// ---- folders and disks ---------------------------------------------------------------------------------------------

TEST_F(RunFailure, AFolderWithARunIsNotOverwrittenUnlessTold) {
  ASSERT_EQ(run_.train("out").code, 0);
  const std::string before = run_.adapter("out");
  Outcome outcome = run_.train("out", {"training.seed=1"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("the output folder exists and is not empty"));
  EXPECT_TRUE(run_.adapter("out") == before);
  outcome = run_.train("out", {"training.seed=1", "output.overwrite=true"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_FALSE(run_.adapter("out") == before);
}

TEST_F(RunFailure, OverwritingTakesAwayNothingBeforeTheNewRunCanStart) {
  ASSERT_EQ(run_.train("out").code, 0);
  const std::string before = run_.adapter("out");
  for (const std::vector<std::string>& wrong :
       std::vector<std::vector<std::string>>{{"model.path=nowhere"},
                                             {"data.train=nowhere.jsonl"},
                                             {"adapter.from=nowhere"},
                                             {"optimizer.damping=off"},
                                             {"training.micro_batches=1", "runtime.ranks_in_process=2"}}) {
    std::vector<std::string> settings = wrong;
    settings.emplace_back("output.overwrite=true");
    EXPECT_NE(run_.train("out", settings).code, 0) << wrong.front();
    EXPECT_TRUE(run_.adapter("out") == before) << wrong.front();
  }
}

TEST_F(RunFailure, OverwritingLeavesForeignFilesAlone) {
  ASSERT_EQ(run_.train("out").code, 0);
  run_.write("out/thesis.tex", "years of work");
  const Outcome outcome = run_.train("out", {"output.overwrite=true"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(run_.read("out/thesis.tex"), "years of work");
  EXPECT_FALSE(run_.adapter("out").empty());
  // What a killed run has left half-written is not foreign.
  fs::remove(run_.path("out/thesis.tex"));
  run_.write("out/.metrics.jsonl.tmp-0123abcd", "{");
  EXPECT_EQ(run_.train("out", {"output.overwrite=true"}).code, 0);
  EXPECT_THAT(run_.list("out"), testing::Not(testing::Contains(".metrics.jsonl.tmp-0123abcd")));
}

TEST_F(RunFailure, AnOutputFolderThatCannotBeMadeIsNamed) {
  run_.write("file", "x");
  expect_failure(run_.train("file"), 2, {"output.dir is not a folder"});
  expect_failure(run_.train("file/out"), 1, {"file/out"});
  EXPECT_EQ(run_.read("file"), "x");
}

TEST_F(RunFailure, AnOutputFolderThatMayNotBeWrittenIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  fs::create_directory(run_.path("locked"));
  fs::permissions(run_.path("locked"), fs::perms::owner_read | fs::perms::owner_exec);
  expect_failure(run_.train("locked/out"), 1, {"locked/out"});
}

TEST_F(RunFailure, AFullDiskIsToldAndLeavesNothingHalf) {
  // The first is full when the adapter is written, the second at a checkpoint. The tokenised data is in the cache.
  ASSERT_EQ(run_.train("first", {"training.save_every=2"}).code, 0);
  const std::uint64_t adapter = run_.adapter("first").size();
  expect_failure(run_.train("out", {"training.save_every=0"}, {.file_limit = adapter - 1}), 1,
                 {"adapter_model.safetensors"});
  fs::remove_all(run_.path("out"));
  // Rank 0 alone writes; the others must not wait for it.
  expect_failure(
      run_.train("out", {"training.save_every=2", "runtime.ranks_in_process=3"}, {.file_limit = adapter - 1}), 1,
      {"safetensors"});
  EXPECT_THAT(run_.list("out/checkpoints"), IsEmpty());
  fs::remove_all(run_.path("out"));
  expect_failure(run_.train("out", {"training.save_every=0", "training.steps=60"}, {.file_limit = 8192}), 1,
                 {"metrics", "disk"});
  fs::remove_all(run_.path("cache"));
  fs::remove_all(run_.path("out"));
  expect_failure(run_.train("out", {}, {.file_limit = 4096}), 1, {"cache"});
  EXPECT_THAT(run_.list("cache"), IsEmpty());
}

// ---- models and data -----------------------------------------------------------------------------------------------

TEST_F(RunFailure, ABrokenModelIsNamed) {
  const std::string weights = run_.read("model/model.safetensors");
  fs::resize_file(run_.path("model/model.safetensors"), weights.size() / 2);
  expect_failure(run_.train("out"), 1, {"model/model.safetensors"});
  EXPECT_FALSE(fs::exists(run_.path("out")));
  fs::remove(run_.path("model/model.safetensors"));
  expect_failure(run_.train("out", {"runtime.ranks_in_process=2"}), 1, {"model"});
  expect_failure(run_.train("out", {"model.path=nowhere"}), 1, {"there is no such model"});
}

TEST_F(RunFailure, ATokenizerOfAnotherModelIsRefused) {
  std::string tokenizer = run_.read("model/tokenizer.json");
  const std::size_t at = tokenizer.find("\"id\": 2,");
  ASSERT_NE(at, std::string::npos);
  tokenizer.replace(at, 8, "\"id\": 320,");  // the model has 320 embeddings, the last is 319
  run_.write("model/tokenizer.json", tokenizer);
  expect_failure(run_.train("out"), 1, {"token"});
}

TEST_F(RunFailure, DataWithNothingToLearnIsRefused) {
  run_.write("train.jsonl", "");
  expect_failure(run_.train("out"), 1, {"train.jsonl"});
  run_.write("train.jsonl", "\n\n");
  expect_failure(run_.train("out", {"runtime.ranks_in_process=2"}), 1, {"train.jsonl"});
  expect_failure(run_.train("out", {"data.train=nowhere.jsonl"}), 1, {"nowhere.jsonl"});
  run_.write("train.jsonl", reversal_records(5, 1));
  expect_failure(run_.train("out", {"data.max_length=4"}), 1, {"train.jsonl"});
  expect_failure(run_.train("out", {"data.max_length=4", "data.too_long=stop"}), 1, {"train.jsonl:1"});
  EXPECT_FALSE(fs::exists(run_.path("out")));
}

TEST_F(RunFailure, ABrokenRecordStopsTheRunOrIsCounted) {
  run_.write("train.jsonl",
             reversal_records(9, 1) + "{\"messages\": [{\"role\": \"user\"}]}\nnot json\n" + reversal_records(9, 2));
  expect_failure(run_.train("out"), 1, {"train.jsonl:10"});
  const Outcome outcome = run_.train("out", {"data.on_error=skip"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("18 examples"), HasSubstr("2")));
}

TEST_F(RunFailure, AnAdapterToGoOnFromMustFit) {
  ASSERT_EQ(run_.train("first").code, 0);
  for (const auto& [setting, part] :
       {std::pair("adapter.rank=8", "rank"), std::pair("adapter.alpha=3", "alpha"),
        std::pair("adapter.rslora=true", "scale"), std::pair("adapter.targets=q", "model.layers.2.mlp.down_proj"),
        std::pair("adapter.layers=0-1", "model.layers.2")}) {
    expect_failure(run_.train("out", {"adapter.from=first", setting}), 2,
                   {"the adapter to go on from is not the job's", part});
  }
  ASSERT_EQ(run_.train("small", {"adapter.targets=v"}).code, 0);
  expect_failure(run_.train("out", {"adapter.from=small"}), 2, {"the job has a pair at", "it has none there"});
  fs::resize_file(run_.path("first/adapter/adapter_model.safetensors"), 1000);
  expect_failure(run_.train("out", {"adapter.from=first"}), 1, {"adapter_model.safetensors"});
  expect_failure(run_.train("out", {"adapter.from=nowhere"}), 1, {"nowhere"});
}

}  // namespace
}  // namespace lomu

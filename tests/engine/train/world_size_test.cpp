// One job, any number of ranks and threads: the adapter is the same file, byte for byte.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <ostream>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

/// What may differ between jobs whose result must not depend on the ranks.
struct Job {
  std::string name;
  std::vector<std::string> settings;

  friend void PrintTo(const Job& job, std::ostream* out) { *out << job.name; }
};

std::vector<Job> jobs() {
  std::vector<Job> all;
  for (const std::string& dtype : dtypes_of_this_machine()) {
    for (const std::string optimizer : {"lora_muon", "adamw"}) {
      const std::vector<std::string> plain = {"runtime.dtype=" + dtype, "optimizer.name=" + optimizer};
      all.push_back({fmt::format("{}_{}", dtype, optimizer), plain});
      // Seven micro-batches fall on no power of two; the second epoch has another order and a last step cut short.
      std::vector<std::string> hard = plain;
      hard.insert(hard.end(), {"adapter.dropout=0.2", "training.epochs=2", "training.micro_batches=7",
                               "optimizer.lr=0.02", "data.validation_split=0.1"});
      all.push_back({fmt::format("{}_{}_dropout_epochs", dtype, optimizer), hard});
    }
  }
  return all;
}

class WorldSize : public testing::TestWithParam<Job> {
 protected:
  /// The adapter of the job with these settings too; the test fails unless the run ends well.
  std::string adapter_with(std::vector<std::string> more, const Launch& launch = {}) {
    const std::string out = fmt::format("out-{}", count_++);
    more.insert(more.begin(), GetParam().settings.begin(), GetParam().settings.end());
    const Outcome outcome = run_.train(out, more, launch);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    const std::string adapter = run_.adapter(out);
    EXPECT_GT(adapter.size(), 10'000u);
    return adapter;
  }

  TinyRun run_;
  int count_ = 0;
};

TEST_P(WorldSize, MpiRanksGiveTheAdapterOfOneProcess) {
  const std::string alone = adapter_with({});
  for (const int ranks : {1, 2, 3, 4}) {
    EXPECT_TRUE(adapter_with({}, {.ranks = ranks}) == alone) << ranks << " ranks";
  }
}

TEST_P(WorldSize, RanksOfOneProcessAndThreadsOfARankDoNotMatter) {
  const std::string alone = adapter_with({});
  for (const int ranks : {2, 3, 4}) {
    EXPECT_TRUE(adapter_with({fmt::format("runtime.ranks_in_process={}", ranks)}) == alone) << ranks << " ranks";
  }
  for (const int threads : {2, 3}) {
    EXPECT_TRUE(adapter_with({fmt::format("runtime.threads={}", threads)}) == alone) << threads << " threads";
  }
  EXPECT_TRUE(adapter_with({"runtime.ranks_in_process=2", "runtime.threads=2"}) == alone);
}

/// What the comparisons above would not see if every run gave one adapter.
TEST(WorldSizeControl, AnotherSeedTypeOrOptimizerIsAnotherAdapter) {
  const TinyRun run;
  std::set<std::string> adapters;
  const std::vector<Job> all = jobs();
  for (const Job& job : all) {
    ASSERT_EQ(run.train(job.name, job.settings).code, 0);
    adapters.insert(run.adapter(job.name));
  }
  ASSERT_EQ(run.train("seed", {"training.seed=1"}).code, 0);
  adapters.insert(run.adapter("seed"));
  EXPECT_EQ(adapters.size(), all.size() + 1);
}

INSTANTIATE_TEST_SUITE_P(Jobs, WorldSize, testing::ValuesIn(jobs()), [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lomu

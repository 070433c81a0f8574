// A whole study by the real program: results, page, and going on after an interruption.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/engine/study/study_text.h"
#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class StudyRunTest : public testing::Test {
 protected:
  StudyRunTest() {
    run_.write("study.yaml", kStudyText);
    run_.write("text.txt", study_words());
  }
  [[nodiscard]] std::vector<json> results(const std::string& folder = "out") const {
    std::vector<json> all;
    std::istringstream in(run_.read(folder + "/results.jsonl"));
    for (std::string line; std::getline(in, line);) all.push_back(json::parse(line));
    return all;
  }
  const TinyRun run_;
};

TEST_F(StudyRunTest, WritesAResultForEveryRunAndThePage) {
  const Outcome outcome = run_.lomu({"study", "study.yaml", "--out", "out", "--jobs", "2"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto all = results();
  ASSERT_EQ(all.size(), 12u);
  for (const json& r : all) {
    EXPECT_GT(r["validation_loss"].get<double>(), 0);
    EXPECT_LT(r["validation_loss"].get<double>(), 6);
    EXPECT_EQ(r["tokens"].get<int>(), 4 * 128);
  }
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("[  12/12]"), HasSubstr("plain: the best lr")));
  EXPECT_THAT(run_.read("out/study.html"), HasSubstr("<svg"));

  // Again: nothing is left to do, and the results are the same.
  const std::string before = run_.read("out/results.jsonl");
  const Outcome again = run_.lomu({"study", "study.yaml", "--out", "out"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(run_.read("out/results.jsonl"), before);
  EXPECT_THAT(again.err, Not(HasSubstr("ETA")));

  // Comments of another version change nothing.
  const std::string config = "out/runs/plain,rank=1,lr=0.001,seed=0.yaml";
  run_.write(config, "# other words\n" + run_.read(config));
  EXPECT_THAT(run_.lomu({"study", "study.yaml", "--out", "out"}).err, Not(HasSubstr("ETA")));

  // What has changed is run again, the rest is kept.
  std::string text = kStudyText;
  text.replace(text.find("weight_decay: 0.1"), 17, "weight_decay: 0.2");
  run_.write("study.yaml", text);
  const Outcome changed = run_.lomu({"study", "study.yaml", "--out", "out", "--jobs", "1"});
  ASSERT_EQ(changed.code, 0) << changed.err;
  EXPECT_THAT(changed.err, AllOf(HasSubstr("plain,rank=1,lr=0.001,seed=0  "), HasSubstr("(done before)")));
  EXPECT_THAT(changed.err, HasSubstr("decayed,rank=2,lr=0.02,seed=1"));
}

TEST_F(StudyRunTest, GoesOnAfterAnInterruption) {
  const std::vector<std::string> arguments = {"study", "study.yaml",       "--out", "out", "--jobs",
                                              "1",     "training.steps=60"};
  const auto process = run_.start(arguments);
  const auto done = [&] {
    std::size_t count = 0;
    for (const std::string& name : run_.list("out/runs")) count += name.ends_with(".json") ? 1 : 0;
    return count;
  };
  for (int i = 0; i < 1000 && done() < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  process->kill(SIGTERM);
  const Outcome stopped = process->wait();
  EXPECT_EQ(stopped.code, 1);
  EXPECT_THAT(stopped.err, HasSubstr("what has finished is kept"));
  const std::size_t kept = done();
  ASSERT_GE(kept, 2u);
  ASSERT_LT(kept, 12u);
  const Outcome rest = run_.lomu(arguments);
  ASSERT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.err, HasSubstr("(done before)"));
  EXPECT_EQ(results().size(), 12u);
}

TEST_F(StudyRunTest, ARunThatDivergesIsAResult) {
  const Outcome outcome = run_.lomu({"study", "study.yaml", "--out", "out", "--quick", "optimizer.lr=1e6"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto all = results();
  ASSERT_EQ(all.size(), 4u);
  for (const json& r : all) {
    EXPECT_TRUE(r["diverged"].get<bool>()) << r;
    EXPECT_FALSE(r.contains("validation_loss"));
  }
}

TEST_F(StudyRunTest, ListsItsRunsWithoutRunningThem) {
  const Outcome outcome = run_.lomu({"study", "study.yaml", "--list", "--quick"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, HasSubstr("plain,rank=2,lr=0.001,seed=0\nplain,rank=2,lr=0.001,seed=1\n"));
  EXPECT_FALSE(std::filesystem::exists(run_.path("runs")));
}

TEST_F(StudyRunTest, AFolderThatCannotBeMadeIsNamed) {
  run_.write("file", "");
  const Outcome outcome = run_.lomu({"study", "study.yaml", "--out", "file/out", "--quick"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("cannot make the folder of the runs"), HasSubstr("file/out/runs")));
}

TEST_F(StudyRunTest, TrainSaysWhatAStudyIs) {
  const Outcome outcome = run_.lomu({"train", "study.yaml"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("`lomu study` runs"));
}

TEST_F(StudyRunTest, ARunThatCannotStartIsReported) {
  run_.write("empty.txt", "");
  const Outcome outcome = run_.lomu({"study", "study.yaml", "--out", "out", "--quick", "data.train=empty.txt"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("runs have no result"));
}

}  // namespace
}  // namespace lomu

// The page of runs from folders written here.
#include "engine/report/run_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <regex>
#include <string>

#include "kernels/error.h"
#include "tests/engine/data/scratch.h"

namespace lomu {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class RunPage : public testing::Test {
 protected:
  std::filesystem::path folder(const std::string& name, const std::string& lr, const std::string& metrics) {
    std::filesystem::create_directories(scratch_.folder() / name);
    (void)scratch_.write(name + "/config.yaml",
                         "optimizer: {lr: " + lr + ", groups: [{match: [norm]}]}\nmodel: {path: m}\n");
    (void)scratch_.write(name + "/metrics.jsonl", metrics);
    return scratch_.folder() / name;
  }

  Scratch scratch_;
};

constexpr const char* kStep1 = R"({"step":1,"loss":2.5,"lr":0.01,"grad_norm":3.0})"
                               "\n";
constexpr const char* kStep2 = R"({"step":2,"loss":1.5,"lr":0.02,"validation_loss":1.75,"pairs":[)"
                               R"({"name":"model.layers.0.mlp.up_proj","stable_rank":2.0,"step_size":0.9},)"
                               R"({"name":"model.layers.7.mlp.up_proj","stable_rank":5.0,"step_size":0.95}]})"
                               "\n";

TEST_F(RunPage, ReadsWhatARunLeaves) {
  const auto path = folder("a", "0.5", std::string(kStep1) + kStep2 + R"({"step":3,"lo)");
  (void)scratch_.write("a/summary.json", R"({"tokens_per_second": 12.5, "compute": "cpu"})");
  const RunHistory run = read_run(path);
  ASSERT_EQ(run.steps.size(), 2u);  // the third line is cut: the run is being written
  EXPECT_EQ(run.steps[1].step, 2);
  EXPECT_EQ(run.steps[1].numbers.at("validation_loss"), 1.75);
  ASSERT_EQ(run.steps[1].pairs.size(), 2u);
  EXPECT_EQ(run.steps[1].pairs[1].figures.at("stable_rank"), 5.0);
  EXPECT_EQ(run.config.at("optimizer.lr"), "0.5");
  EXPECT_THAT(run.config.at("optimizer.groups"), HasSubstr("norm"));
  EXPECT_EQ(run.summary.at("compute"), "cpu");
}

TEST_F(RunPage, SetsRunsBesideEachOther) {
  const std::array runs = {read_run(folder("first", "0.5", std::string(kStep1) + kStep2)),
                           read_run(folder("sec<o>nd", "0.25", kStep1))};
  const std::string page = page_of_runs(runs, "made & here");
  EXPECT_THAT(page, AllOf(HasSubstr("2 runs"), HasSubstr("first"), HasSubstr("sec&lt;o&gt;nd"), Not(HasSubstr("<o>")),
                          HasSubstr("made &amp; here")));
  EXPECT_THAT(page, HasSubstr("<td>optimizer.lr</td><td>0.5</td><td>0.25</td>"));
  EXPECT_THAT(page, Not(HasSubstr("model.path")));  // the same in both
  EXPECT_THAT(page, AllOf(HasSubstr("training loss"), HasSubstr("validation loss"), HasSubstr("stable rank")));
  EXPECT_THAT(page, HasSubstr("<title>7, 2: 5</title>"));  // layer 7 at step 2
  EXPECT_THAT(page, Not(HasSubstr("tokens a second")));    // in neither
}

TEST_F(RunPage, NeedsNothingFromElsewhere) {
  const std::array runs = {read_run(folder("a", "0.5", std::string(kStep1) + kStep2))};
  std::string page = page_of_runs(runs, "");
  for (const char* what : {"<script", "src=", "href", "url(", "@import", "<link", "<img"}) {
    EXPECT_THAT(page, Not(HasSubstr(what)));
  }
  page = std::regex_replace(page, std::regex("xmlns=\"http://www.w3.org/2000/svg\""), "");
  EXPECT_THAT(page, Not(HasSubstr("//")));
}

TEST_F(RunPage, RunsOfOneNameAreToldByTheirPaths) {
  const std::array runs = {read_run(folder("a/out", "0.5", kStep1)), read_run(folder("b/out", "0.5", kStep1))};
  const std::string page = page_of_runs(runs, "");
  EXPECT_THAT(page, AllOf(HasSubstr("a/out</th>"), HasSubstr("b/out</th>"), HasSubstr("configurations are the same")));
}

TEST_F(RunPage, LongRunsAreDrawnInGroups) {
  std::string metrics;
  for (int step = 1; step <= 5000; ++step) {
    metrics += "{\"step\":" + std::to_string(step) + ",\"loss\":" + std::to_string(1.0 + step % 7) + "}\n";
  }
  const std::array runs = {read_run(folder("a", "0.5", metrics))};
  EXPECT_LT(page_of_runs(runs, "").size(), 40'000u);
}

TEST_F(RunPage, RefusesWhatIsNoRun) {
  const auto refusal = [](const std::filesystem::path& path) {
    try {
      (void)read_run(path);
    } catch (const Error& error) {
      return std::string(error.what()) + " | " + error.where();
    }
    return std::string("nothing");
  };
  EXPECT_THAT(refusal(scratch_.folder() / "absent"), HasSubstr("no such run folder"));
  std::filesystem::create_directories(scratch_.folder() / "empty");
  EXPECT_THAT(refusal(scratch_.folder() / "empty"), HasSubstr("no config.yaml"));
  EXPECT_THAT(refusal(folder("new", "1", "")), HasSubstr("not done a step"));
  EXPECT_THAT(refusal(folder("broken", "1", std::string(kStep1) + "nonsense\n" + kStep2)),
              AllOf(HasSubstr("no step of a run"), HasSubstr("metrics.jsonl:2")));
}

}  // namespace
}  // namespace lomu

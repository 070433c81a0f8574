// From the text of a study to its runs: every combination once, by name, and wrong studies refused where they are
// wrong.
#include "engine/study/study_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "engine/config/problems.h"
#include "engine/study/study_runs.h"
#include "kernels/error.h"
#include "tests/engine/study/study_text.h"

namespace lomu {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class StudyText : public testing::Test {
 protected:
  StudyText() : file_(std::filesystem::temp_directory_path() / ("study-" + std::to_string(::getpid()) + ".yaml")) {}
  ~StudyText() override { std::filesystem::remove(file_); }

  Study read(const std::string& text, bool quick = false) {
    std::ofstream(file_) << text;
    return read_study(file_, quick);
  }
  /// The study with one piece of it replaced.
  Study read_with(const std::string& from, const std::string& to) {
    std::string text = kStudyText;
    text.replace(text.find(from), from.size(), to);
    return read(text);
  }
  std::string refusal(const std::string& from, const std::string& to) {
    try {
      read_with(from, to);
    } catch (const UsageError& error) {
      return std::string(error.what()) + " | " + error.where() + " | " + error.hint();
    }
    return "accepted";
  }

  std::filesystem::path file_;
};

TEST_F(StudyText, GivesEveryCombinationOnce) {
  const Study study = read(kStudyText);
  EXPECT_EQ(study.claim, "small models learn");
  const auto runs = runs_of(study, "out", {});
  ASSERT_EQ(runs.size(), 2u * 2 * 2 + 2 * 1 * 2);  // a variant's own list takes the place of the axis
  std::set<std::string> ids;
  for (const StudyRun& run : runs) ids.insert(run.id);
  EXPECT_EQ(ids.size(), runs.size());
  EXPECT_EQ(runs[0].id, "plain,rank=1,lr=0.001,seed=0");
  EXPECT_EQ(runs[1].id, "plain,rank=1,lr=0.001,seed=1");
  EXPECT_EQ(runs.back().id, "decayed,rank=2,lr=0.02,seed=1");
  EXPECT_EQ(runs.back().at.at("optimizer.lr"), "0.02");
  EXPECT_THAT(runs.back().config, AllOf(HasSubstr("weight_decay: 0.1"), HasSubstr("lr: 0.02"), HasSubstr("seed: 1")));
}

TEST_F(StudyText, TheQuickFormReplacesListsSettingsAndVariants) {
  const auto runs = runs_of(read(kStudyText, true), "out", {});
  ASSERT_EQ(runs.size(), 4u);
  for (const StudyRun& run : runs) {
    EXPECT_EQ(run.variant, "plain");
    EXPECT_EQ(run.at.at("adapter.rank"), "2");
    EXPECT_THAT(run.config, HasSubstr("steps: 2"));
  }
}

TEST_F(StudyText, SettingsOfTheCommandLineHoldForEveryRun) {
  const std::vector<std::string> settings = {"training.steps=9"};
  for (const StudyRun& run : runs_of(read(kStudyText), "out", settings)) {
    EXPECT_THAT(run.config, HasSubstr("steps: 9"));
  }
}

TEST_F(StudyText, RefusesWhatIsWrongByLineAndKey) {
  EXPECT_THAT(refusal("  claim: small", "  clam: small"),
              AllOf(HasSubstr(":9 (study.clam)"), HasSubstr("study.claim")));
  EXPECT_THAT(refusal("x: optimizer.lr", "x: optimizer.beta1"), HasSubstr("`optimizer.beta1` is no axis of the study"));
  EXPECT_THAT(refusal("  x: optimizer.lr\n", ""), HasSubstr("`study.x` is missing"));
  EXPECT_THAT(refusal("[1, 2]", "2"), HasSubstr("a list of values is expected here"));
  EXPECT_THAT(refusal("[1, 2]", "[2, 2]"), HasSubstr("a value is given twice"));
  EXPECT_THAT(refusal("plain:", "a b:"), HasSubstr("a name of letters"));
  EXPECT_THAT(refusal("[plain]", "[other]"), HasSubstr("accepted"));  // only the quick form reads it
  EXPECT_THAT(refusal("  repeat: training.seed", "  metric: speed"),
              HasSubstr("allowed: validation_loss, training_loss"));
  EXPECT_THAT(refusal("    adapter.rank: [1, 2]", "\tadapter.rank: [1, 2]"), HasSubstr("not valid YAML"));
  std::string job = kStudyText.substr(0, kStudyText.find("study:"));
  EXPECT_THROW(read(job), UsageError);
}

TEST_F(StudyText, WhatIsWrongInTheJobIsToldWithItsLineAndRun) {
  const Study study = read_with("adapter: {rank: 2, alpha: 1}", "adapter: {rnk: 2, alpha: 1}");
  try {
    runs_of(study, "out", {});
    FAIL();
  } catch (const config::ConfigError& error) {
    EXPECT_THAT(error.where(), AllOf(HasSubstr(":2 (adapter.rnk)"), HasSubstr("run plain,rank=1")));
    EXPECT_THAT(error.hint(), HasSubstr("adapter.rank"));
  }
  EXPECT_THROW(runs_of(read_with("optimizer.lr: [0.001, 0.01]", "optimizer.lr: [0.001, -1]"), "out", {}),
               config::ConfigError);
}

// Every study that comes with the project is one, in both of its forms.
TEST(ReadyStudies, HaveRunsThatAreJobs) {
  std::size_t studies = 0;
  for (const auto& entry : std::filesystem::directory_iterator(LOMU_STUDIES)) {
    SCOPED_TRACE(entry.path().filename().string());
    ++studies;
    const Study whole = read_study(entry.path(), false);
    EXPECT_GT(whole.claim.size(), 20u);
    const auto runs = runs_of(whole, "out", {});
    const auto quick = runs_of(read_study(entry.path(), true), "out", {});
    EXPECT_GE(runs.size(), 10u);
    EXPECT_GE(quick.size(), 2u);
    EXPECT_LE(quick.size(), 16u);
    std::set<std::string> seeds;
    for (const StudyRun& run : runs) seeds.insert(run.at.at("training.seed"));
    if (whole.claim.find("(One seed.)") == std::string::npos) {
      EXPECT_GE(seeds.size(), 3u) << "a headline needs three seeds";
    }
  }
  EXPECT_GE(studies, 8u);
}

}  // namespace
}  // namespace lomu

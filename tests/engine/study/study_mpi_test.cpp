// Ranks of mpirun share the runs of a study, and each run is a job of one process all the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/engine/study/study_text.h"
#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

TEST(StudyMpi, RanksShareTheRuns) {
  const TinyRun run;
  run.write("study.yaml", kStudyText);
  run.write("text.txt", study_words());
  const Outcome outcome = run.lomu({"study", "study.yaml", "--out", "out", "--jobs", "1"}, {.ranks = 3});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::string results = run.read("out/results.jsonl");
  EXPECT_EQ(std::count(results.begin(), results.end(), '\n'), 12);
  // The same numbers as one process gives: times aside, which runs were whose does not matter.
  const Outcome alone = run.lomu({"study", "study.yaml", "--out", "alone", "--jobs", "1"});
  ASSERT_EQ(alone.code, 0) << alone.err;
  const auto losses = [](const std::string& text) {
    std::string all;
    for (std::size_t at = text.find("\"validation_loss\":"); at != std::string::npos;
         at = text.find("\"validation_loss\":", at + 1)) {
      all += text.substr(at, text.find(',', at) - at) + "\n";
    }
    return all;
  };
  EXPECT_EQ(losses(results), losses(run.read("alone/results.jsonl")));
}

}  // namespace
}  // namespace lomu

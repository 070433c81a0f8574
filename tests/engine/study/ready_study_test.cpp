// The quick form of every study in configs/studies, run by the real program on data of a test: results for every run, a
// page, a verdict. Their shape is checked, not who wins: a few steps say nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/engine/study/study_text.h"
#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(LOMU_STUDIES)) all.push_back(entry.path().stem());
  std::sort(all.begin(), all.end());
  return all;
}

class ReadyStudy : public testing::TestWithParam<std::string> {};

TEST_P(ReadyStudy, RunsInItsQuickForm) {
  const TinyRun run;
  run.write("text.txt", study_words() + study_words() + study_words());
  const bool from_files = GetParam().starts_with("finetune");
  std::vector<std::string> arguments = {"study",
                                        std::string(LOMU_STUDIES) + "/" + GetParam() + ".yaml",
                                        "--quick",
                                        "--out",
                                        "out",
                                        "training.steps=4",
                                        "data.cache_dir=cache"};
  if (from_files) {
    arguments.insert(arguments.end(), {"model.path=model", "data.train=train.jsonl", "data.validation=test.jsonl"});
  } else {
    arguments.insert(arguments.end(),
                     {"data.train=text.txt", "data.validation=text.txt", "training.micro_batch_tokens=256"});
  }
  const Outcome outcome = run.lomu(arguments);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  std::istringstream lines(run.read("out/results.jsonl"));
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const json result = json::parse(line);
    ASSERT_TRUE(result.contains("validation_loss")) << line;
    EXPECT_TRUE(std::isfinite(result["validation_loss"].get<double>())) << line;
  }
  EXPECT_GE(count, 2u);
  const std::string page = run.read("out/" + GetParam() + ".html");
  EXPECT_THAT(page, HasSubstr("<svg"));
  EXPECT_THAT(page, HasSubstr("<h2>Verdict</h2><ul class=\"verdict\">\n<li>"));
}

INSTANTIATE_TEST_SUITE_P(Studies, ReadyStudy, testing::ValuesIn(names()), [](const auto& test) { return test.param; });

}  // namespace
}  // namespace lomu

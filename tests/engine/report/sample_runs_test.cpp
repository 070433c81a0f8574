// `lomu report --samples` of real runs: the texts of the page are those of `lomu generate`, and what is missing is
// told.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "engine/page/html.h"
#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class ReportSamples : public testing::Test {
 protected:
  ReportSamples() { run_.write("one.jsonl", record("red tin", "tin red") + record("blue oak", "oak blue")); }

  static std::string record(const std::string& question, const std::string& answer) {
    return fmt::format(R"({{"messages":[{{"role":"user","content":"{}"}},{{"role":"assistant","content":"{}"}}]}})"
                       "\n",
                       question, answer);
  }
  static std::string chat(const std::string& question) {
    return fmt::format("<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", question);
  }

  void train(const std::string& out, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> settings = {"data.validation=one.jsonl", "training.save_every=0"};
    settings.insert(settings.end(), more.begin(), more.end());
    const Outcome outcome = run_.train(out, settings);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
  [[nodiscard]] Outcome report(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "report");
    arguments.insert(arguments.end(), {"--dtype", "f32", "--threads", "1"});
    Outcome outcome = run_.lomu(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  }
  [[nodiscard]] std::string page() const { return run_.read("report.html"); }

  /// What lomu generate answers to the records of one.jsonl, ten tokens each, as the page writes it.
  [[nodiscard]] std::vector<std::string> generated(const std::vector<std::string>& model) const {
    std::vector<std::string> arguments = {"generate", "--file",  "one.jsonl", "--output",  "got.jsonl", "--max-tokens",
                                          "10",       "--dtype", "f32",       "--threads", "1"};
    arguments.insert(arguments.end(), model.begin(), model.end());
    const Outcome outcome = run_.lomu(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    std::vector<std::string> answers;
    std::istringstream lines(run_.read("got.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      answers.push_back(nlohmann::json::parse(line)["got"].get<std::string>());
    }
    return answers;
  }

  /// A row of the page; " ..." after an answer that was cut is let pass.
  static testing::Matcher<const std::string&> has_row(const std::vector<std::string>& texts) {
    std::string row = text_table({}, {texts});
    row = row.substr(row.find("<tr><td>"));
    row.resize(row.find("</tr>"));
    return testing::ResultOf(
        [](const std::string& page) { return std::regex_replace(page, std::regex(" \\.\\.\\.<"), "<"); },
        HasSubstr(row));
  }
  static std::size_t rows(const std::string& page) {
    const std::string samples =
        page.substr(page.find("<h2>Samples"), page.find("<h2>Telemetry") - page.find("<h2>Samples"));
    std::size_t count = 0;
    for (std::size_t at = samples.find("<tr><td>"); at != std::string::npos; at = samples.find("<tr><td>", at + 1))
      ++count;
    return count;
  }

  const TinyRun run_;
};

TEST_F(ReportSamples, AreWhatGenerateAnswersBeforeAndAfter) {
  train("out", {"training.steps=20", "optimizer.lr=0.1"});
  (void)report({"out", "--samples", "2", "--sample-tokens", "10"});
  const auto before = generated({"--model", "model"});
  const auto after = generated({"--model", "model", "--adapter", "out"});
  ASSERT_NE(before, after);
  EXPECT_THAT(page(), has_row({chat("red tin"), "tin red", before.at(0), after.at(0)}));
  EXPECT_THAT(page(), has_row({chat("blue oak"), "oak blue", before.at(1), after.at(1)}));
  EXPECT_THAT(page(), AllOf(HasSubstr("<h2>Samples</h2>"), HasSubstr("validation data: one.jsonl"),
                            HasSubstr("lomu report out --samples 2")));

  (void)report({"out"});
  EXPECT_THAT(page(), Not(HasSubstr("Samples")));
}

TEST_F(ReportSamples, OfRunsWithOneBaseShareItsAnswers) {
  train("one", {"optimizer.lr=0.1"});
  train("two", {"adapter.rank=2", "optimizer.lr=0.1"});
  const Outcome outcome = report({"one", "two", "--samples", "1", "--sample-tokens", "10"});
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("model, before\n"), HasSubstr("one, after\n"), HasSubstr("two, after\n")));
  EXPECT_EQ(outcome.err.find("before"), outcome.err.rfind("before"));
  const std::string before = generated({"--model", "model"}).at(0);
  for (const char* out : {"one", "two"}) {
    const std::string after = generated({"--model", "model", "--adapter", out}).at(0);
    EXPECT_THAT(page(), has_row({chat("red tin"), "tin red", before, after}));
  }
}

TEST_F(ReportSamples, AreNoMoreThanThereAreRecords) {
  train("out");
  (void)report({"out", "--samples", "1000", "--sample-tokens", "1"});
  EXPECT_THAT(page(), HasSubstr("The first 2 examples of"));
  EXPECT_EQ(rows(page()), 2u);
}

TEST_F(ReportSamples, CannotBreakThePage) {
  run_.write("one.jsonl", record("<script>alert('&')</script>", "</td></table>"));
  train("out");
  (void)report({"out", "--samples", "1", "--sample-tokens", "30"});
  EXPECT_THAT(page(), AllOf(Not(HasSubstr("<script")), HasSubstr("&lt;script&gt;alert('&amp;')&lt;/script&gt;"),
                            HasSubstr("<td>&lt;/td&gt;&lt;/table&gt;</td>")));
}

TEST_F(ReportSamples, OfARunFromNothingAreAfterAlone) {
  run_.write("text.txt", std::string(400, 'a') + "bcd");
  run_.write("job.yaml",
             "model: {start: scratch, scratch: {layers: 1, hidden: 32, heads: 2}}\n"
             "adapter: {targets: none, full: all}\n"
             "data: {train: text.txt, max_length: 64, cache_dir: cache}\n"
             "training: {steps: 30, micro_batch_tokens: 128, micro_batches: 1, save_every: 0}\n"
             "optimizer: {name: adamw, lr: 0.01}\n"
             "runtime: {dtype: f32, threads: 1}\n");
  ASSERT_EQ(run_.train("out").code, 0);
  const Outcome outcome = report({"out", "--samples", "1", "--sample-tokens", "8"});
  EXPECT_THAT(outcome.err, Not(HasSubstr("warning")));
  const std::string eight(8, 'a');
  EXPECT_THAT(page(), AllOf(HasSubstr("there is no text before"), HasSubstr("it has no validation data: text.txt"),
                            HasSubstr("<th>prompt</th><th>wanted</th><th>after</th>"),
                            has_row({std::string(16, 'a'), eight, eight})));

  fs::remove_all(run_.path("out/model"));
  EXPECT_THAT(report({"out", "--samples", "1"}).err, HasSubstr("No text after: the run has left no model yet"));
  EXPECT_THAT(page(), HasSubstr("<th>prompt</th><th>wanted</th></tr>"));
}

TEST_F(ReportSamples, OfAModelTrainedInFullAreBeforeAndAfter) {
  train("out", {"optimizer.name=adamw", "optimizer.lr=0.01", "adapter.targets=none", "adapter.full=norms,down"});
  (void)report({"out", "--samples", "1", "--sample-tokens", "10"});
  const std::string before = generated({"--model", "model"}).at(0);
  const std::string after = generated({"--model", "out/model"}).at(0);
  ASSERT_NE(before, after);
  EXPECT_THAT(page(), has_row({chat("red tin"), "tin red", before, after}));
}

TEST_F(ReportSamples, TellWhatIsNotThereAnyMore) {
  train("out");
  const auto expect = [&](const std::string& sentence, const std::string& hint) {
    const Outcome outcome = report({"out", "--samples", "1", "--sample-tokens", "4"});
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("lomu: warning: out: " + sentence), HasSubstr("hint: " + hint)));
    EXPECT_THAT(page(), HasSubstr("<p>" + sentence));
  };
  fs::rename(run_.path("out/adapter"), run_.path("adapter"));
  expect("No text after: the run has left no adapter yet", "make the report again");
  EXPECT_THAT(page(), HasSubstr("<th>prompt</th><th>wanted</th><th>before</th></tr>"));
  fs::rename(run_.path("adapter"), run_.path("out/adapter"));

  fs::rename(run_.path("one.jsonl"), run_.path("moved.jsonl"));
  expect("No samples: the run's data is not there any more", "the path is meant from the folder where");
  EXPECT_THAT(page(), AllOf(HasSubstr("not there any more (one.jsonl).</p>"), Not(HasSubstr("<th>prompt</th>"))));
  fs::rename(run_.path("moved.jsonl"), run_.path("one.jsonl"));

  run_.patch("out/adapter/adapter_model.safetensors", 0, std::string(8, '\xff'));
  expect("No text after: ", "");

  fs::rename(run_.path("model"), run_.path("moved"));
  expect("No samples: the run's base model is not there any more", "the path is meant from the folder where");
  EXPECT_THAT(page(), AllOf(HasSubstr("(model).</p>"), HasSubstr("<h2>Curves</h2>"), HasSubstr("<h2>Telemetry</h2>")));
}

}  // namespace
}  // namespace lomu

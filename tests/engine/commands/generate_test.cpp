// lomu generate and inspect as their users run them, on a random model: what matters is not what it says, but that the
// same is said each time, where it is said, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class Generate : public testing::Test {
 protected:
  Outcome generate(std::vector<std::string> more, const Launch& launch = {}) {
    std::vector<std::string> arguments = {"generate", "--model", "model", "--dtype", "f32", "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_.lomu(arguments, launch);
  }

  /// Standard output of a run that must end well.
  std::string said(const std::vector<std::string>& more, const Launch& launch = {}) {
    const Outcome outcome = generate(more, launch);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("tokens"));
    return outcome.out;
  }

  void expect_refusal(const std::vector<std::string>& more, int code, const std::string& part) {
    const Outcome outcome = generate(more);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, AllOf(testing::StartsWith("lomu: error: "), HasSubstr(part)));
  }

  TinyRun run_;
};

TEST_F(Generate, IsTheSameTextEachTimeAndOnAnyNumberOfThreads) {
  const std::string text = said({"--prompt", "red tin", "--greedy", "--max-tokens", "12"});
  EXPECT_GT(text.size(), 1u);
  EXPECT_TRUE(text.ends_with('\n'));
  EXPECT_EQ(said({"--prompt", "red tin", "--greedy", "--max-tokens", "12"}), text);
  EXPECT_EQ(said({"--prompt", "red tin", "--temperature", "0", "--max-tokens", "12"}), text);
  EXPECT_EQ(said({"--prompt", "red tin", "--greedy", "--max-tokens", "12", "--backend", "reference"}), text);
  EXPECT_NE(said({"--prompt", "blue tin", "--greedy", "--max-tokens", "12"}), text);
}

TEST_F(Generate, ReadsItsPromptFromStandardInput) {
  const std::vector<std::string> greedy = {"--greedy", "--max-tokens", "12"};
  EXPECT_EQ(said(greedy, {.input = "red tin\n"}), said({"--prompt", "red tin", "--greedy", "--max-tokens", "12"}));
  run_.write("talk.json", R"([{"role":"user","content":"red tin"}])");
  EXPECT_EQ(said(greedy, {.input = "red tin"}), said({"--messages", "talk.json", "--greedy", "--max-tokens", "12"}));
  const Outcome empty = generate(greedy, {.input = " \n"});
  EXPECT_EQ(empty.code, 2);
  EXPECT_THAT(empty.err, HasSubstr("standard input is empty"));
}

TEST_F(Generate, DrawsBySeed) {
  const auto draw = [&](const char* seed) {
    return said({"--prompt", "red tin", "--temperature", "1.5", "--top-p", "1", "--max-tokens", "20", "--seed", seed});
  };
  const std::string text = draw("1");
  EXPECT_EQ(draw("1"), text);
  EXPECT_NE(draw("2"), text);
}

TEST_F(Generate, AnAdapterChangesWhatIsSaid) {
  ASSERT_EQ(run_.train("out", {"optimizer.lr=0.1", "training.steps=30", "training.save_every=0"}).code, 0);
  const std::vector<std::string> prompt = {"--prompt", "red tin", "--greedy", "--max-tokens", "12"};
  std::vector<std::string> with_run = prompt;
  with_run.insert(with_run.end(), {"--adapter", "out"});
  std::vector<std::string> with_folder = prompt;
  with_folder.insert(with_folder.end(), {"--adapter", "out/adapter"});
  EXPECT_NE(said(with_run), said(prompt));
  EXPECT_EQ(said(with_run), said(with_folder));
}

TEST_F(Generate, RefusesAnAdapterThatIsNotThereOrOfAnotherModel) {
  expect_refusal({"--prompt", "x", "--adapter", "nowhere"}, 1, "nowhere");
  expect_refusal({"--prompt", "x", "--adapter", "model"}, 1, "no adapter is here");
  const std::filesystem::path other = std::filesystem::path(LOMU_TEST_DATA) / "models" / "qwen2" / "adapter";
  expect_refusal({"--prompt", "x", "--adapter", other}, 1, "lora_A");
}

TEST_F(Generate, RefusesPromptsThatDoNotFitTheModel) {
  expect_refusal({"--prompt", std::string(300, 'x')}, 2,
                 "leaves no room in a context of 256");  // the model's context is 256 tokens
  expect_refusal({"--prompt", ""}, 2, "empty");
  expect_refusal({"--prompt", "x", "--messages", "y"}, 2, "--prompt excludes --messages");
}

TEST_F(Generate, AnswersAndScoresAFile) {
  const Outcome outcome = generate({"--file", "test.jsonl", "--output", "got.jsonl", "--score", "--max-tokens", "10"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("exact answers: 0 of 12 (0.0 %)"));
  std::istringstream lines(run_.read("got.jsonl"));
  std::istringstream records(run_.read("test.jsonl"));
  int count = 0;
  for (std::string line, record; std::getline(lines, line) && std::getline(records, record); ++count) {
    const json answer = json::parse(line);
    const json messages = json::parse(record)["messages"];
    EXPECT_EQ(answer["prompt"], messages[0]["content"]);
    EXPECT_EQ(answer["expected"], messages[1]["content"]);
    EXPECT_TRUE(answer["got"].is_string());
    EXPECT_FALSE(answer["exact"].get<bool>());
  }
  EXPECT_EQ(count, 12);

  // Answered many at once, as one by one.
  run_.write("one.jsonl", R"({"messages":[{"role":"user","content":"red tin"},{"role":"assistant","content":"-"}]})"
                          "\n");
  ASSERT_EQ(generate({"--file", "one.jsonl", "--output", "one-got.jsonl", "--max-tokens", "10"}).code, 0);
  EXPECT_EQ(json::parse(run_.read("one-got.jsonl"))["got"].get<std::string>() + "\n",
            said({"--prompt", "red tin", "--greedy", "--max-tokens", "10"}));
}

TEST_F(Generate, ScoresWhatAnAdapterHasLearned) {
  // One record, known by heart in a fraction of a second.
  const std::string record =
      R"({"messages":[{"role":"user","content":"say"},{"role":"assistant","content":"pen jar"}]})";
  run_.write("train.jsonl", record + "\n");
  ASSERT_EQ(
      run_.train("out", {"optimizer.lr=0.1", "training.steps=60", "training.micro_batches=1", "adapter.rank=8"}).code,
      0);
  const Outcome outcome = generate({"--adapter", "out", "--file", "train.jsonl", "--score", "--max-tokens", "10"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("exact answers: 1 of 1 (100.0 %)"));
  EXPECT_EQ(said({"--adapter", "out", "--prompt", "say", "--greedy"}), "pen jar\n");
}

TEST_F(Generate, RefusesABrokenFileByLine) {
  run_.write("bad.jsonl", reversal_records(2, 1) + "{oh\n");
  expect_refusal({"--file", "bad.jsonl", "--output", "got.jsonl"}, 1, "bad.jsonl:3");
  EXPECT_FALSE(std::filesystem::exists(run_.path("got.jsonl")));
  expect_refusal({"--file", "nowhere.jsonl", "--score"}, 1, "nowhere.jsonl");
}

class Inspect : public testing::Test {
 protected:
  std::string shown(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"inspect"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run_.lomu(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  }

  TinyRun run_;
};

TEST_F(Inspect, ShowsAModel) {
  EXPECT_THAT(shown({"--model", "model"}), AllOf(HasSubstr("llama"), HasSubstr("tokenizer      288 tokens"),
                                                 HasSubstr("4 of 16, 2 for keys and values"), HasSubstr("chatml")));
  EXPECT_TRUE(json::parse(shown({"--model", "model", "--json"})).is_object());
}

TEST_F(Inspect, ShowsAnAdapter) {
  ASSERT_EQ(run_.train("out", {"adapter.targets=q,down"}).code, 0);
  EXPECT_THAT(shown({"--adapter", "out"}), AllOf(HasSubstr("q"), HasSubstr("down"), HasSubstr("4")));
  EXPECT_TRUE(json::parse(shown({"--adapter", "out", "--json"})).is_object());
  EXPECT_EQ(run_.lomu({"inspect", "--adapter", "nowhere"}).code, 1);
}

TEST_F(Inspect, ShowsWhatIsLearnedOfAnExample) {
  run_.write("train.jsonl", R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})"
                            "\n");
  const std::string text = shown({"--example", "job.yaml"});
  EXPECT_THAT(text, HasSubstr("2 learned (marked *)"));  // "b" and the end of the turn
  EXPECT_THAT(text, AllOf(HasSubstr("assistant  * \"b\""), HasSubstr("assistant  * \"<|im_end|>\"")));
  EXPECT_EQ(run_.lomu({"inspect", "--example", "job.yaml", "--index", "1"}).code, 2);
}

}  // namespace
}  // namespace lomu

// Which records become samples, and where they are cut.
#include "engine/report/sample_prompts.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/data/packing.h"
#include "kernels/error.h"
#include "tests/engine/data/scratch.h"
#include "tests/engine/data/small_tokenizer.h"

namespace lomu {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SamplePromptsOf : public testing::Test {
 protected:
  SamplePromptsOf() { config_.data.cache_dir = scratch_.folder() / "cache"; }

  /// A file of training data.
  void train(const std::string& name, const std::string& content) {
    config_.data.train.push_back(scratch_.write(name, content));
  }
  [[nodiscard]] SamplePrompts take(std::size_t count, std::size_t tokens = 64,
                                   const SmallTokenizerOptions& options = {}) const {
    return sample_prompts(config_, small_tokenizer(options), count, tokens);
  }
  static std::string prompt(const SamplePrompt& sample) { return small_tokenizer().decode(sample.ids); }

  Scratch scratch_;
  config::TrainConfig config_;
};

constexpr const char* kTwoTurns =
    R"({"messages":[{"role":"user","content":"U1"},{"role":"assistant","content":"A1"},)"
    R"({"role":"user","content":"U2"},{"role":"assistant","content":"A2"},{"role":"user","content":"U3"}]})"
    "\n";
constexpr const char* kToTheLastAnswer =
    "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
    "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n";

TEST_F(SamplePromptsOf, ConversationsReachToTheirLastAnswer) {
  train("t.jsonl", kTwoTurns);
  for (const auto train_on : {config::TrainOn::kAssistant, config::TrainOn::kAll}) {
    config_.data.train_on = train_on;
    const SamplePrompts samples = take(5);
    ASSERT_EQ(samples.prompts.size(), 1u);
    EXPECT_EQ(prompt(samples.prompts[0]), kToTheLastAnswer);
    EXPECT_EQ(samples.prompts[0].shown, kToTheLastAnswer);
    EXPECT_EQ(samples.prompts[0].wanted, "A2");
    EXPECT_THAT(samples.prompts[0].stop_ids, testing::Contains(kTurnEnd));
  }
}

TEST_F(SamplePromptsOf, RecordsAndTextsAreCutWhereTheAnswerBegins) {
  train("t.jsonl",
        R"({"prompt":"ask ","completion":"told"})"
        "\n\n"
        R"({"text":"0123456"})"  // with its end of text, eight tokens
        "\n"
        R"({"prompt":"","completion":"0123456"})"
        "\n");
  train("t.txt", "0123456789");
  config_.data.max_length = 8;
  const SamplePrompts samples = take(5);
  std::vector<std::string> prompts;
  std::vector<std::string> wanted;
  for (const SamplePrompt& sample : samples.prompts) {
    prompts.push_back(prompt(sample));
    wanted.push_back(sample.wanted);
  }
  // The record that is too long for the run is none of its examples.
  EXPECT_THAT(prompts, ElementsAre("01", "01", "01", "8"));
  EXPECT_THAT(wanted, ElementsAre("23456", "23456", "234567", "9"));

  config_.data.max_length = 64;
  EXPECT_EQ(prompt(take(1).prompts[0]), "ask ");
  EXPECT_EQ(take(1).prompts[0].wanted, "told");
  EXPECT_EQ(take(1, 2).prompts[0].wanted, "to ...");
  EXPECT_EQ(prompt(take(2, 64, {.adds_bos = true}).prompts[1]), "<s>0");
}

TEST_F(SamplePromptsOf, ALongPromptShowsItsEnd) {
  train("t.jsonl", fmt::format(R"({{"prompt":"{}z","completion":"told"}})", std::string(400, 'x')));
  const SamplePrompts samples = take(1);
  EXPECT_EQ(samples.prompts[0].ids.size(), 401u);
  EXPECT_EQ(samples.prompts[0].shown, "... " + std::string(255, 'x') + "z");
}

TEST_F(SamplePromptsOf, ATruncatedRecordStaysInsideTheRunsLength) {
  train("t.jsonl", kTwoTurns);
  config_.data.max_length = 45;
  config_.data.too_long = config::OnLongRecord::kTruncate;
  const SamplePrompts samples = take(1);
  EXPECT_LT(samples.prompts[0].ids.size(), 45u);
  EXPECT_THAT(prompt(samples.prompts[0]), testing::EndsWith("assistant\n"));
  EXPECT_EQ(samples.prompts[0].wanted, "A1");
}

std::string numbered(const std::string& word, int from, int to) {
  std::string lines;
  for (int i = from; i < to; ++i) lines += fmt::format(R"({{"prompt":"{}{} ","completion":"c"}})", word, i) + "\n";
  return lines;
}

TEST_F(SamplePromptsOf, ARunComeFromItsValidationData) {
  train("t.jsonl", numbered("t", 0, 3));
  train("u.jsonl", numbered("u", 3, 30));
  SamplePrompts samples = take(4);
  ASSERT_EQ(samples.prompts.size(), 4u);
  EXPECT_EQ(samples.prompts[3].shown, "u3 ");
  EXPECT_THAT(samples.source, HasSubstr("it has no validation data"));

  config_.data.validation_split = 0.3;
  samples = take(100);
  const auto held_out = split_validation(30, 0.3, static_cast<std::uint64_t>(config_.training.seed)).validation;
  ASSERT_EQ(samples.prompts.size(), held_out.size());
  for (std::size_t i = 0; i < held_out.size(); ++i) {
    EXPECT_EQ(samples.prompts[i].shown, fmt::format("{}{} ", held_out[i] < 3 ? "t" : "u", held_out[i]));
  }
  EXPECT_THAT(samples.source, HasSubstr("held out"));

  config_.data.validation_split.reset();
  config_.data.validation = scratch_.write("v.jsonl", numbered("v", 0, 2));
  samples = take(100);
  ASSERT_EQ(samples.prompts.size(), 2u);
  EXPECT_EQ(samples.prompts[1].shown, "v1 ");
  EXPECT_THAT(samples.source,
              testing::AllOf(HasSubstr("The first 2 examples of the run's validation data"), HasSubstr("v.jsonl")));
}

TEST_F(SamplePromptsOf, LostDataAreNamedWithWhatToDo) {
  config_.data.validation = "nowhere/v.jsonl";
  try {
    (void)take(1);
    FAIL();
  } catch (const FileError& error) {
    EXPECT_EQ(error.where(), "nowhere/v.jsonl");
    EXPECT_THAT(error.hint(), HasSubstr("the folder where the run was started"));
  }
  EXPECT_THAT(hint_for_lost_path("/nowhere/v.jsonl"), HasSubstr("put it back"));
}

}  // namespace
}  // namespace lomu

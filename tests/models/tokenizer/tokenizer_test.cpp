#include "models/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "models/tokenizer/utf8.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace lomu {
namespace {

using ::testing::ElementsAre;

// The text of each token, by its span.
std::vector<std::string> pieces(const Tokenizer& tokenizer, const std::string& text, bool add_special_tokens = false) {
  std::vector<std::string> result;
  for (const TokenSpan& span : tokenizer.encode_with_offsets(text, add_special_tokens)) {
    result.push_back(text.substr(span.begin, span.end - span.begin));
  }
  return result;
}

TEST(Tokenizer, SpansOfByteLevelTokensJoinToTheText) {
  const Tokenizer tokenizer = test::small_tokenizer("gpt2");
  const std::string text = "the naïve 😀<|im_end|>\n  fox";
  std::string joined;
  for (const std::string& piece : pieces(tokenizer, text)) joined += piece;
  EXPECT_EQ(joined, text);
  EXPECT_THAT(pieces(tokenizer, "a<|im_end|>b"), ElementsAre("a", "<|im_end|>", "b"));
}

TEST(Tokenizer, SpansOfNormalizedTextPointIntoTheOriginal) {
  const Tokenizer tokenizer = test::small_tokenizer("qwen2");
  const std::string text = "<|im_start|>e\u0301<|im_end|>";
  const auto spans = tokenizer.encode_with_offsets(text);
  EXPECT_EQ(spans.front().end, 12U);
  EXPECT_EQ(spans[1].begin, 12U);
  EXPECT_EQ(spans[spans.size() - 2].end, 15U);
  EXPECT_EQ(spans.back().begin, 15U);
  EXPECT_EQ(spans.back().end, text.size());
}

TEST(Tokenizer, SpecialTokensAroundTheTextHaveEmptySpans) {
  const Tokenizer tokenizer = test::small_tokenizer("llama3");
  const auto spans = tokenizer.encode_with_offsets("x", true);
  EXPECT_EQ(spans.front(), (TokenSpan{0, 0, 0}));
  EXPECT_EQ(spans.size(), 2U);
}

TEST(Tokenizer, InvalidBytesAreReadAsReplacementCharacters) {
  const Tokenizer tokenizer = test::small_tokenizer("gpt2");
  EXPECT_EQ(tokenizer.encode("a\xFF\xE2\x82z"), tokenizer.encode("a\uFFFD\uFFFDz"));
  EXPECT_EQ(tokenizer.encode_with_offsets("\xFFz").back().begin, 1U);
}

TEST(Tokenizer, AnswersAboutItsTokens) {
  const auto json = test::small_json("gpt2");
  const Tokenizer tokenizer = test::load_text(
      json.dump(), R"({"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|im_end|>", "pad_token": "absent",
                       "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(tokenizer.vocab_size(), static_cast<std::int64_t>(json["model"]["vocab"].size()));
  EXPECT_EQ(tokenizer.bos(), 0);
  EXPECT_EQ(tokenizer.eos(), 2);
  EXPECT_EQ(tokenizer.pad(), std::nullopt);
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.chat_template(), "D");
  EXPECT_EQ(tokenizer.id_of("<|im_start|>"), 1);
  EXPECT_EQ(tokenizer.id_of("no such token"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(1));
  EXPECT_FALSE(tokenizer.is_special(40));
  EXPECT_EQ(tokenizer.bytes_of(*tokenizer.id_of("Ġ")), " ");
  EXPECT_EQ(tokenizer.bytes_of(-1), "");
  EXPECT_EQ(tokenizer.bytes_of(1 << 30), "");
  const std::vector<std::int32_t> ids = {1, -7, 1 << 30, 2};
  EXPECT_EQ(tokenizer.decode(ids), "<|im_start|><|im_end|>");
  EXPECT_EQ(tokenizer.decode(ids, true), "");
}

TEST(Tokenizer, KnowsWhetherItAddsBos) {
  const Tokenizer tokenizer =
      test::load_text(test::small_json("llama3").dump(), R"({"bos_token": "<|endoftext|>"})", "from the file");
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.chat_template(), "from the file");
}

TEST(Tokenizer, FingerprintIsOfWhatDeterminesIds) {
  const auto json = test::small_json("qwen2");
  const auto fingerprint = [](const nlohmann::json& j) { return test::load_text(j.dump()).fingerprint(); };
  const std::uint64_t original = fingerprint(json);
  EXPECT_EQ(test::load_text(json.dump(), R"({"eos_token": "<|im_end|>"})", "a template").fingerprint(), original);

  auto merges = json;
  std::swap(merges["model"]["merges"][0], merges["model"]["merges"][1]);
  auto normalizer = json;
  normalizer["normalizer"] = nullptr;
  auto flag = json;
  flag["added_tokens"][0]["lstrip"] = true;
  auto ignore = json;
  ignore["model"]["ignore_merges"] = true;
  for (const auto& changed : {merges, normalizer, flag, ignore}) EXPECT_NE(fingerprint(changed), original);
}

TEST(Tokenizer, LongRunsTakeTimeInProportion) {
  const Tokenizer tokenizer = test::small_tokenizer("qwen2");
  for (const char* unit : {"a", " ", "\n", "é", "0", "!", "\u0301", "ab "}) {
    const auto start = std::chrono::steady_clock::now();
    const std::string text = test::repeat(unit, 300'000) + "x";
    const auto ids = tokenizer.encode(text);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    EXPECT_FALSE(ids.empty());
    EXPECT_LT(elapsed.count(), 5.0) << "of " << unit;  // some 0.1 s; quadratic would be minutes
  }
}

TEST(Tokenizer, WithoutADecoderTokensAreJoinedWithSpaces) {
  auto json = test::small_json("gpt2");
  json["decoder"] = nullptr;
  const Tokenizer tokenizer = test::load_text(json.dump());
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<|im_start|><|im_end|>")), "<|im_start|> <|im_end|>");
}

}  // namespace
}  // namespace lomu

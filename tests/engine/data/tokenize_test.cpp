#include "engine/data/tokenize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/error.h"
#include "models/tokenizer/byte_tokenizer.h"
#include "tests/engine/data/small_tokenizer.h"

namespace lomu {
namespace {

using testing::HasSubstr;

RecordTokenizer tokenizer_with(const TokenizeOptions& options) {
  const Tokenizer tokenizer = small_tokenizer();
  return {tokenizer, small_chat(tokenizer), options};
}

/// The text of the tokens that are learned, with special tokens.
std::string learned(const Example& example) {
  std::vector<std::int32_t> ids;
  for (std::size_t t = 1; t < example.labels.size(); ++t) {
    if (example.labels[t] == kNotSupervised) continue;
    EXPECT_EQ(example.labels[t], example.ids[t]);
    ids.push_back(example.ids[t]);
  }
  return small_tokenizer().decode(ids);
}

std::string text_of(const Example& example, TokenRole role) {
  std::vector<std::int32_t> ids;
  for (std::size_t t = 0; t < example.ids.size(); ++t) {
    if (example.roles[t] == role) ids.push_back(example.ids[t]);
  }
  return small_tokenizer().decode(ids);
}

ChatRecord two_turns() {
  return {{{"system", "S"}, {"user", "U1"}, {"assistant", "A1"}, {"user", "U2"}, {"assistant", "A2"}}, 0};
}

TEST(Tokenize, ChatLearnsEveryAnswerWithItsEnd) {
  const Example example = tokenizer_with({}).tokenize(two_turns(), "f:1");
  EXPECT_EQ(small_tokenizer().decode(example.ids),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
            "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n");
  EXPECT_EQ(learned(example), "A1<|im_end|>A2<|im_end|>");
  EXPECT_EQ(text_of(example, TokenRole::kSystem), "<|im_start|>system\nS<|im_end|>\n");
  EXPECT_THAT(text_of(example, TokenRole::kUser), HasSubstr("U2"));
  EXPECT_THAT(text_of(example, TokenRole::kAssistant), HasSubstr("A2<|im_end|>"));
}

TEST(Tokenize, PromptOfMessagesIsNotLearned) {
  ChatRecord record = two_turns();
  record.first_completion = 3;
  EXPECT_EQ(learned(tokenizer_with({}).tokenize(record, "f:1")), "A2<|im_end|>");
}

TEST(Tokenize, EmptyAnswerLearnsItsEnd) {
  const ChatRecord record{{{"user", "U"}, {"assistant", ""}}, 0};
  EXPECT_EQ(learned(tokenizer_with({}).tokenize(record, "f:1")), "<|im_end|>");
}

TEST(Tokenize, CompletionIsJoinedAsItIsAndEnds) {
  const Example example = tokenizer_with({}).tokenize(CompletionRecord{"2+2=", "4"}, "f:1");
  EXPECT_EQ(small_tokenizer().decode(example.ids), "2+2=4<|endoftext|>");
  EXPECT_EQ(learned(example), "4<|endoftext|>");
  EXPECT_EQ(text_of(example, TokenRole::kPrompt), "2+2=");
  EXPECT_EQ(text_of(example, TokenRole::kCompletion), "4<|endoftext|>");
}

TEST(Tokenize, ATokenAcrossTheBorderIsNotLearned) {
  const Example example = tokenizer_with({}).tokenize(CompletionRecord{"xa", "bc"}, "f:1");
  EXPECT_EQ(example.ids, (std::vector<std::int32_t>{'x', kJoined, 'c', kTextEnd}));
  EXPECT_EQ(learned(example), "c<|endoftext|>");
}

TEST(Tokenize, AWrittenEndIsNotDoubled) {
  const auto tokenizer = tokenizer_with({});
  EXPECT_EQ(small_tokenizer().decode(tokenizer.tokenize(TextRecord{"t<|endoftext|>"}, "f:1").ids), "t<|endoftext|>");
  const Example empty = tokenizer.tokenize(CompletionRecord{"p<|endoftext|>", ""}, "f:1");
  EXPECT_EQ(learned(empty), "<|endoftext|>");
  EXPECT_EQ(small_tokenizer().decode(empty.ids), "p<|endoftext|><|endoftext|>");
}

TEST(Tokenize, TextIsLearnedWhole) {
  const Example example = tokenizer_with({}).tokenize(TextRecord{"xyz"}, "f:1");
  EXPECT_EQ(learned(example), "yz<|endoftext|>");  // nothing stands before the first token to predict it from
  EXPECT_EQ(count_supervised(example.labels), 3u);
}

TEST(Tokenize, TheStartOfTextIsAddedWhereTheModelHasOne) {
  const RecordTokenizer tokenizer(small_tokenizer({.adds_bos = true}), std::nullopt, {});
  const Example example = tokenizer.tokenize(TextRecord{"x"}, "f:1");
  EXPECT_EQ(example.ids, (std::vector<std::int32_t>{kTextStart, 'x', kTextEnd}));
  EXPECT_EQ(example.labels, (std::vector<std::int32_t>{kNotSupervised, 'x', kTextEnd}));
  EXPECT_EQ(example.roles.front(), TokenRole::kLayout);
}

TEST(Tokenize, TrainOnAllLearnsPromptsToo) {
  const Example example = tokenizer_with({.train_on = TrainOn::kAll}).tokenize(two_turns(), "f:1");
  EXPECT_EQ(example.labels, example.ids);
}

TEST(Tokenize, NothingToLearnIsSaid) {
  const auto tokenizer = tokenizer_with({});
  for (const Record& record :
       {Record(ChatRecord{{{"user", "U"}}, 0}), Record(ChatRecord{{{"system", "S"}}, 0}), Record(TextRecord{""})}) {
    const auto result = tokenizer.example(record, "f:1");
    ASSERT_TRUE(std::holds_alternative<Unusable>(result));
    EXPECT_EQ(std::get<Unusable>(result).reason, Unusable::Reason::kNothingToLearn);
  }
}

TEST(Tokenize, TooLongIsSkippedStoppedOrCut) {
  const Record record = CompletionRecord{"pp", "cccc"};  // 7 tokens
  const auto skipped = tokenizer_with({.max_length = 6}).example(record, "f:1");
  ASSERT_TRUE(std::holds_alternative<Unusable>(skipped));
  EXPECT_EQ(std::get<Unusable>(skipped).reason, Unusable::Reason::kTooLong);
  EXPECT_EQ(std::get<Unusable>(skipped).tokens, 7u);
  EXPECT_TRUE(std::holds_alternative<Example>(tokenizer_with({.max_length = 7}).example(record, "f:1")));

  const auto cut = tokenizer_with({.max_length = 4, .too_long = TooLong::kTruncate}).example(record, "f:1");
  ASSERT_TRUE(std::holds_alternative<Example>(cut));
  EXPECT_EQ(learned(std::get<Example>(cut)), "cc");
  EXPECT_EQ(std::get<Example>(cut).cut, 3u);
  const auto nothing_left = tokenizer_with({.max_length = 2, .too_long = TooLong::kTruncate}).example(record, "f:1");
  EXPECT_EQ(std::get<Unusable>(nothing_left).reason, Unusable::Reason::kNothingToLearn);

  try {
    (void)tokenizer_with({.max_length = 6, .too_long = TooLong::kStop}).example(record, "f:9");
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_STREQ(error.what(), "the record has 7 tokens, at most 6 are allowed");
    EXPECT_EQ(error.where(), "f:9");
  }
}

TEST(Tokenize, WhatTheModelLacksIsNamed) {
  const RecordTokenizer no_chat(small_tokenizer(), std::nullopt, {});
  EXPECT_THROW((void)no_chat.tokenize(two_turns(), "f:1"), FormatError);
  const RecordTokenizer no_end(small_tokenizer({.has_eos = false}), std::nullopt, {});
  EXPECT_THROW((void)no_end.tokenize(TextRecord{"x"}, "f:1"), UnsupportedError);
  EXPECT_THROW(tokenizer_with({.max_length = 1}), UsageError);
}

TEST(Tokenize, TheFingerprintFollowsEverythingThatMatters) {
  const Tokenizer plain = small_tokenizer();
  const auto base = tokenizer_with({}).fingerprint();
  EXPECT_EQ(base, tokenizer_with({}).fingerprint());
  EXPECT_NE(base, RecordTokenizer(plain, std::nullopt, {}).fingerprint());
  EXPECT_NE(base, RecordTokenizer(small_tokenizer({.has_eos = false}), small_chat(plain), {}).fingerprint());
  EXPECT_NE(base, tokenizer_with({.max_length = 100}).fingerprint());
  EXPECT_NE(base, tokenizer_with({.train_on = TrainOn::kAll}).fingerprint());
  EXPECT_NE(base, tokenizer_with({.too_long = TooLong::kStop}).fingerprint());
}

TEST(Tokenize, ATextIsCutIntoWindowsOneAfterTheOther) {
  const RecordTokenizer bytes(Tokenizer(byte_tokenizer()), std::nullopt, {.max_length = 4});
  const auto text_of_windows = [&](std::string_view text) {
    std::vector<std::string> windows;
    for (const Example& example : bytes.windows(text)) {
      EXPECT_EQ(example.labels, example.ids);
      EXPECT_EQ(count_supervised(example.labels), example.ids.size() - 1);
      windows.push_back(Tokenizer(byte_tokenizer()).decode(example.ids));
    }
    return windows;
  };
  EXPECT_THAT(text_of_windows("abcdefghij"), testing::ElementsAre("abcd", "efgh", "ij"));
  EXPECT_THAT(text_of_windows("abcdefghi"), testing::ElementsAre("abcd", "efgh"));  // from one token nothing is learned
  EXPECT_THAT(text_of_windows("a\n\nb"), testing::ElementsAre("a\n\nb"));
  EXPECT_THAT(text_of_windows("a"), testing::IsEmpty());
  EXPECT_THAT(text_of_windows(""), testing::IsEmpty());
}

}  // namespace
}  // namespace lomu

#include "models/tokenizer/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/tokenizer/small_tokenizer.h"

namespace lomu {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<Message> kTalk = {
    {"user", "Hi"}, {"assistant", "Hello you"}, {"user", "Bye"}, {"assistant", "So long"}};

Tokenizer chatml_tokenizer(const std::string& chat_template = {}) {
  return test::load_text(test::small_json("gpt2").dump(), R"({"eos_token": "<|endoftext|>"})", chat_template);
}

Tokenizer llama3_tokenizer() {
  auto json = test::small_json("gpt2");
  auto& tokens = json["added_tokens"];
  json["model"]["vocab"].erase("<|im_start|>");
  json["model"]["vocab"].erase("<|im_end|>");
  tokens.erase(2);
  tokens.erase(1);
  int id = static_cast<int>(json["model"]["vocab"].size());
  for (auto& [token, value] : json["model"]["vocab"].items())
    value = value.get<int>() > 2 ? value.get<int>() - 2 : value.get<int>();
  for (const char* token : {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
    tokens.push_back({{"id", id++}, {"content", token}, {"special", true}});
  }
  return test::load_text(json.dump());
}

std::vector<std::string> texts(const RenderedChat& chat, const std::vector<RenderedChat::Range>& ranges) {
  std::vector<std::string> result;
  for (const auto& range : ranges) result.push_back(chat.text.substr(range.begin, range.end - range.begin));
  return result;
}

TEST(ChatMl, SupervisesWhatTheAssistantSaysWithItsEndOfTurn) {
  const auto chat = ChatFormat::choose(chatml_tokenizer(), "auto").render(kTalk, false);
  EXPECT_EQ(chat.text,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello you<|im_end|>\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nSo long<|im_end|>\n");
  EXPECT_THAT(texts(chat, chat.supervised), ElementsAre("Hello you<|im_end|>", "So long<|im_end|>"));
  EXPECT_EQ(chat.supervised[1].message, 3U);
  EXPECT_THAT(texts(chat, chat.messages)[0], "<|im_start|>user\nHi<|im_end|>\n");
  EXPECT_EQ(chat.messages.size(), 4U);
}

TEST(ChatMl, WritesTheDefaultSystemLineOfTheTemplate) {
  const std::string chat_template =
      "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{ "
      "'<|im_start|>' }}";
  const ChatFormat format = ChatFormat::choose(chatml_tokenizer(chat_template), "chatml");
  EXPECT_THAT(format.render(kTalk, false).text,
              ::testing::StartsWith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi"));
  EXPECT_EQ(format.render(std::vector<Message>{{"system", "No."}}, true).text,
            "<|im_start|>system\nNo.<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(format.render({}, true).text, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatMl, ASystemLineThatIsComputedIsNoDefault) {
  const std::string chat_template =
      R"({{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{{ "<|im_start|>system\n" }}{{ '<|im_end|>' }})";
  EXPECT_THAT(ChatFormat::choose(chatml_tokenizer(chat_template), "auto").render(kTalk, false).text,
              ::testing::StartsWith("<|im_start|>user\nHi"));
}

TEST(ChatMl, ThinkingBlocksStandAfterTheLastQuestionOnly) {
  const std::string chat_template = "<|im_start|> {%- if loop.last or (not loop.last and reasoning_content) %} ...";
  const ChatFormat format = ChatFormat::choose(chatml_tokenizer(chat_template), "auto");
  const auto chat = format.render(kTalk, false);
  EXPECT_THAT(texts(chat, chat.supervised),
              ElementsAre("Hello you<|im_end|>", "<think>\n\n</think>\n\nSo long<|im_end|>"));
  const auto thought = format.render(
      std::vector<Message>{
          {"assistant", "<think>\nold\n</think>\n\nA"}, {"user", "?"}, {"assistant", "<think>\nnew\n</think>\n\nB"}},
      false);
  EXPECT_THAT(texts(thought, thought.supervised), ElementsAre("A<|im_end|>", "<think>\nnew\n</think>\n\nB<|im_end|>"));
}

TEST(Llama3, TrimsContentsAndStartsWithBos) {
  const ChatFormat format = ChatFormat::choose(llama3_tokenizer(), "auto");
  EXPECT_EQ(format.name(), "llama3");
  const auto chat = format.render(std::vector<Message>{{"user", " \u00a0Hi\n"}, {"assistant", "\tYo \x1f"}}, true);
  EXPECT_EQ(
      chat.text,
      "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
      "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_THAT(texts(chat, chat.supervised), ElementsAre("Yo<|eot_id|>"));
}

TEST(ChatFormat, SaysWhyItCannotChoose) {
  const Tokenizer llama2 = test::small_tokenizer("llama2");
  try {
    ChatFormat::choose(llama2, "auto");
    ADD_FAILURE();
  } catch (const UnsupportedError& error) {
    EXPECT_THAT(error.what(), HasSubstr("<|im_start|>"));
    EXPECT_THAT(error.what(), HasSubstr("<|eot_id|>"));
  }
  EXPECT_THROW(ChatFormat::choose(llama2, "chatml"), UsageError);
  EXPECT_THROW(ChatFormat::choose(llama2, "llama3"), UsageError);
  EXPECT_THROW(ChatFormat::choose(chatml_tokenizer(), "vicuna"), UsageError);
  EXPECT_THROW(ChatFormat::choose(chatml_tokenizer("{{ '[INST]' }}"), "auto"), UnsupportedError);
  EXPECT_THROW(ChatFormat::choose(chatml_tokenizer(), "auto").render(std::vector<Message>{{"", "x"}}, false),
               UsageError);
}

TEST(ChatFormat, StopsAtTheEndOfTurnAndAtEos) {
  EXPECT_THAT(ChatFormat::choose(chatml_tokenizer(), "auto").stop_ids(), ElementsAre(2, 0));
}

TEST(TokenizeSupervised, LabelsTheAnswerAndItsEndAndNothingElse) {
  const Tokenizer tokenizer = chatml_tokenizer();
  const auto tokens = tokenize_supervised(tokenizer, ChatFormat::choose(tokenizer, "auto").render(kTalk, false));
  ASSERT_EQ(tokens.ids.size(), tokens.labels.size());
  ASSERT_EQ(tokens.ids.size(), tokens.messages.size());
  std::vector<std::int32_t> supervised;
  for (std::size_t i = 0; i < tokens.ids.size(); ++i) {
    if (tokens.labels[i] == kNotSupervised) continue;
    EXPECT_EQ(tokens.labels[i], tokens.ids[i]);
    EXPECT_EQ(tokens.messages[i] % 2, 1);
    supervised.push_back(tokens.ids[i]);
  }
  EXPECT_EQ(tokenizer.decode(supervised), "Hello you<|im_end|>So long<|im_end|>");
  EXPECT_EQ(tokens.messages.front(), 0);
  EXPECT_EQ(tokens.messages.back(), 3);  // the newline after the last end of turn
  EXPECT_EQ(tokens.labels.back(), kNotSupervised);
}

TEST(TokenizeSupervised, ATokenBelongsToWhereItBegins) {
  const Tokenizer tokenizer = chatml_tokenizer();
  const std::string text = "the fox";
  const auto spans = tokenizer.encode_with_offsets(text);
  ASSERT_GT(spans[0].end, 1U) << "the test needs a first token of several bytes";
  RenderedChat chat{text, {{1, text.size() - 1, 0}}, {}};  // begins inside the first token, ends inside the last
  const auto tokens = tokenize_supervised(tokenizer, chat);
  EXPECT_EQ(tokens.labels.front(), kNotSupervised);
  EXPECT_EQ(tokens.labels.back(), tokens.ids.back());
  EXPECT_EQ(tokens.messages.front(), kNoMessage);
}

}  // namespace
}  // namespace lomu

#include "engine/data/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/error.h"

namespace lomu {
namespace {

using testing::HasSubstr;

TEST(Records, ReadsMessages) {
  const Record record = parse_record(
      R"({"id": 7, "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "h\u00e9"}, {"role": "assistant", "content": "x"}]})",
      "f:1");
  const auto& chat = std::get<ChatRecord>(record);
  ASSERT_EQ(chat.messages.size(), 3u);
  EXPECT_EQ(chat.messages[0].content, "");
  EXPECT_EQ(chat.messages[1].role, "user");
  EXPECT_EQ(chat.messages[1].content, "h\xC3\xA9");
  EXPECT_EQ(chat.first_completion, 0u);
}

TEST(Records, ReadsPromptAndCompletion) {
  const auto plain = std::get<CompletionRecord>(parse_record(R"({"prompt": "2+2=", "completion": "4"})", "f:1"));
  EXPECT_EQ(plain.prompt, "2+2=");
  EXPECT_EQ(plain.completion, "4");
  const auto chat = std::get<ChatRecord>(parse_record(
      R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})",
      "f:1"));
  EXPECT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.first_completion, 1u);
}

TEST(Records, ReadsText) {
  EXPECT_EQ(std::get<TextRecord>(parse_record(R"(  {"text": "a\nb"}  )", "f:1")).text, "a\nb");
  EXPECT_EQ(std::get<TextRecord>(parse_record("{\"text\": \"\"}", "f:1")).text, "");
}

TEST(Records, AnAbsentColumnMayBeNull) {
  const Record record = parse_record(R"({"messages": null, "prompt": "a", "completion": "b", "text": null})", "f:1");
  EXPECT_TRUE(std::holds_alternative<CompletionRecord>(record));
}

TEST(Records, APromptBesideMessagesIsOnlyMetadata) {
  const Record record = parse_record(R"({"prompt": "x", "messages": [{"role": "user", "content": "a"}]})", "f:1");
  EXPECT_TRUE(std::holds_alternative<ChatRecord>(record));
}

TEST(Records, ManyKeysAreReadInLinearTime) {
  std::string line = "{\"text\": \"a\"";
  for (int i = 0; i < 200000; ++i) line += ", \"k" + std::to_string(i) + "\": 0";
  EXPECT_EQ(std::get<TextRecord>(parse_record(line + "}", "f:1")).text, "a");
}

struct Broken {
  const char* name;
  std::string line;
  const char* what;   // part of what()
  const char* where;  // all of where()
};

class BrokenRecord : public testing::TestWithParam<Broken> {};

TEST_P(BrokenRecord, IsRefusedWithPlaceAndReason) {
  try {
    parse_record(GetParam().line, "data.jsonl:12");
    FAIL() << "accepted";
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), HasSubstr(GetParam().what));
    EXPECT_EQ(error.where(), GetParam().where);
    EXPECT_FALSE(error.hint().empty());
    EXPECT_LT(std::string(error.what()).size(), 400u);
  }
}

std::string nested(std::size_t depth) {
  return R"({"text": )" + std::string(depth, '[') + std::string(depth, ']') + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Table, BrokenRecord,
    testing::Values(
        Broken{"Cut", R"({"text": "a)", "missing closing quote", "data.jsonl:12:12"},
        Broken{"OnlyABrace", "{", "invalid JSON", "data.jsonl:12:2"},
        Broken{"NotJson", "hello", "invalid JSON", "data.jsonl:12:1"},
        Broken{"TrailingComma", R"({"text": "a",})", "invalid JSON", "data.jsonl:12:14"},
        Broken{"TwoObjects", R"({"text": "a"} {"text": "b"})", "invalid JSON", "data.jsonl:12:15"},
        Broken{"SingleQuotes", "{'text': 'a'}", "invalid JSON", "data.jsonl:12:2"},
        Broken{"NaN", R"({"text": NaN})", "invalid JSON", "data.jsonl:12:10"},
        Broken{"HugeNumber", R"({"text": 1e999999})", "too large", "data.jsonl:12"},
        Broken{"InvalidUtf8", "{\"text\": \"a\xFF\"}", "ill-formed UTF-8", "data.jsonl:12:12"},
        Broken{"LoneSurrogate", R"({"text": "\ud800"})", "surrogate", "data.jsonl:12:17"},
        Broken{"RawControlCharacter", "{\"text\": \"a\tb\"}", "control character", "data.jsonl:12:12"},
        Broken{"NulByte", std::string("{\"text\": \"a\"}\0", 14), "invalid JSON", "data.jsonl:12:14"},
        Broken{"List", R"([{"text": "a"}])", "found a list", "data.jsonl:12"},
        Broken{"Number", "17", "found a number", "data.jsonl:12"},
        Broken{"Null", "null", "found null", "data.jsonl:12"}, Broken{"NoKeys", "{}", "found no keys", "data.jsonl:12"},
        Broken{"OtherKeys", R"({"question": "a", "answer": "b"})", "found answer, question", "data.jsonl:12"},
        Broken{"PromptAlone", R"({"prompt": "a"})", "found prompt", "data.jsonl:12"},
        Broken{"TwoForms", R"({"text": "a", "prompt": "b", "completion": "c"})", "more than one form", "data.jsonl:12"},
        Broken{"KeyTwice", R"({"text": "a", "text": "b"})", "\"text\" stands twice", "data.jsonl:12"},
        Broken{"KeyWithEscapes", "{\"\\u001b[31m\": 1}", "found ?[31m", "data.jsonl:12"},
        Broken{"KeyTwiceInside", R"({"messages": [{"role": "user", "role": "user", "content": "a"}]})",
               "\"role\" stands twice", "data.jsonl:12"},
        Broken{"TextIsNumber", R"({"text": 5})", "text must be a string, found a number", "data.jsonl:12"},
        Broken{"CompletionIsList", R"({"prompt": "a", "completion": ["b"]})", "completion is a list", "data.jsonl:12"},
        Broken{"MessagesIsString", R"({"messages": "hi"})", "messages must be a list", "data.jsonl:12"},
        Broken{"NoMessages", R"({"messages": []})", "empty list", "data.jsonl:12"},
        Broken{"MessageIsString", R"({"messages": ["hi"]})", "messages[0] must be an object", "data.jsonl:12"},
        Broken{"NoRole", R"({"messages": [{"content": "a"}]})", "messages[0] has no \"role\"; found content",
               "data.jsonl:12"},
        Broken{"ShareGpt", R"({"messages": [{"from": "human", "value": "a"}]})", "found from, value", "data.jsonl:12"},
        Broken{"NoContent", R"({"messages": [{"role": "user"}]})", "has no \"content\"", "data.jsonl:12"},
        Broken{"ContentNull", R"({"messages": [{"role": "user", "content": null}]})", "found null", "data.jsonl:12"},
        Broken{"ContentParts", R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})", "found a list",
               "data.jsonl:12"},
        Broken{"Tool", R"({"messages": [{"role": "tool", "content": "a"}]})", "the role \"tool\"", "data.jsonl:12"},
        Broken{"ToolCalls", R"({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]})",
               "\"tool_calls\", which is not implemented", "data.jsonl:12"},
        Broken{"Tools", R"({"messages": [{"role": "user", "content": "a"}], "tools": [{}]})", "\"tools\"",
               "data.jsonl:12"},
        Broken{"Weight", R"({"messages": [{"role": "assistant", "content": "a", "weight": 0}]})", "\"weight\"",
               "data.jsonl:12"},
        Broken{"PromptMessagesEmpty", R"({"prompt": [], "completion": [{"role": "assistant", "content": "a"}]})",
               "prompt is an empty list", "data.jsonl:12"},
        Broken{"DeepNesting", nested(100000), "nests deeper", "data.jsonl:12"},
        Broken{"LongGarbage", std::string(1000000, 'x'), "invalid JSON", "data.jsonl:12:1"}),
    [](const auto& case_info) { return case_info.param.name; });

}  // namespace
}  // namespace lomu

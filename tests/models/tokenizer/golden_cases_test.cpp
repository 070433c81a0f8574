// Every small tokenizer of tests/data/tokenizer against cases made by Hugging Face's library (make_cases.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "models/tokenizer/tokenizer_json.h"
#include "models/tokenizer/utf8.h"
#include "models/tokenizer/verify_cases.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace lomu {
namespace {

std::vector<std::string> folder_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::data_folder())) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void expect_all_pass(const std::vector<TokenizerCheck>& checks) {
  EXPECT_GT(checks.size(), 50U);
  for (const TokenizerCheck& check : checks) {
    EXPECT_TRUE(check.pass) << check.name << " " << check.quantity << ": got " << check.got << ", expected "
                            << check.expected;
  }
}

std::vector<std::string> case_texts(const std::string& name) {
  std::vector<std::string> texts;
  std::istringstream lines(test::read_text(test::data_folder() / name / "cases.jsonl"));
  for (std::string line; std::getline(lines, line);) texts.push_back(nlohmann::json::parse(line)["text"]);
  return texts;
}

class GoldenCases : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenCases, IdsAndTextAreHuggingFaces) {
  expect_all_pass(verify_tokenizer_folder(test::data_folder() / GetParam()));
}

TEST_P(GoldenCases, WrittenAndReadAgainNothingChanges) {
  const test::TemporaryFolder folder;
  write_tokenizer_files(read_tokenizer_spec(test::data_folder() / GetParam()), folder.path());
  const Tokenizer again = Tokenizer::load(folder.path());
  EXPECT_EQ(again.fingerprint(), test::small_tokenizer(GetParam()).fingerprint());
  expect_all_pass(verify_tokenizer_cases(again, test::data_folder() / GetParam() / "cases.jsonl"));
}

TEST_P(GoldenCases, StreamedBytesAreTheDecodedText) {
  const Tokenizer tokenizer = test::small_tokenizer(GetParam());
  const bool sentencepiece = tokenizer.token_of(0) == "<unk>";  // decoding takes one space from the front of the whole
  for (const std::string& text : case_texts(GetParam())) {
    const auto ids = tokenizer.encode(text);
    Utf8Stream stream;
    std::string streamed;
    for (const std::int32_t id : ids) streamed += stream.add(tokenizer.bytes_of(id));
    streamed += stream.finish();
    if (sentencepiece && streamed.starts_with(' ')) streamed.erase(0, 1);
    EXPECT_EQ(streamed, tokenizer.decode(ids));
  }
}

TEST_P(GoldenCases, SpansStayInsideTheTextAndGoForward) {
  const Tokenizer tokenizer = test::small_tokenizer(GetParam());
  for (const std::string& text : case_texts(GetParam())) {
    std::size_t last = 0;
    for (const TokenSpan& span : tokenizer.encode_with_offsets(text, true)) {
      EXPECT_LE(last, span.begin);
      EXPECT_LE(span.begin, span.end);
      EXPECT_LE(span.end, text.size());
      last = span.begin;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Small, GoldenCases, ::testing::ValuesIn(folder_names()), [](const auto& parameter) {
  std::string name = parameter.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Tokenizer, IdsDoNotDependOnThreads) {
  const Tokenizer tokenizer = test::small_tokenizer("qwen2");
  const auto texts = case_texts("qwen2");
  std::vector<std::vector<std::int32_t>> expected;
  for (const std::string& text : texts) expected.push_back(tokenizer.encode(text));
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (std::size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(tokenizer.encode(texts[i]), expected[i]);
    });
  }
}

TEST(VerifyCases, AWrongCaseIsShownAtItsFirstDifference) {
  const test::TemporaryFolder folder;
  const Tokenizer tokenizer = test::small_tokenizer("gpt2");
  auto ids = tokenizer.encode("the quick brown fox");
  ids.back() += 1;
  folder.write(
      "cases.jsonl",
      nlohmann::json({{"kind", "wrong"}, {"text", "the quick brown fox"}, {"ids", ids}, {"decoded", "?"}}).dump());
  const auto checks = verify_tokenizer_cases(tokenizer, folder.path() / "cases.jsonl");
  ASSERT_EQ(checks.size(), 2U);
  EXPECT_EQ(checks[0].name, "wrong:1");
  EXPECT_EQ(checks[0].quantity, "ids");
  EXPECT_FALSE(checks[0].pass);
  EXPECT_NE(checks[0].expected.find(std::to_string(ids.back())), std::string::npos);
  EXPECT_FALSE(checks[1].pass);
}

TEST(VerifyCases, ABrokenLineIsNamed) {
  const test::TemporaryFolder folder;
  const Tokenizer tokenizer = test::small_tokenizer("gpt2");
  for (const char* line : {"{\"text\": 3}", "[]", "{", "{\"text\": \"a\", \"ids\": [-1]}", "{\"text\": \"a\"}"}) {
    folder.write("cases.jsonl", std::string("{\"text\": \"\", \"ids\": []}\n") + line + "\n");
    try {
      verify_tokenizer_cases(tokenizer, folder.path() / "cases.jsonl");
      ADD_FAILURE() << line;
    } catch (const FormatError& error) {
      EXPECT_NE(error.where().find("cases.jsonl:2"), std::string::npos) << error.where();
    }
  }
  folder.write("cases.jsonl", "\n\n");
  EXPECT_THROW(verify_tokenizer_cases(tokenizer, folder.path() / "cases.jsonl"), FormatError);
  EXPECT_THROW(verify_tokenizer_cases(tokenizer, folder.path() / "missing.jsonl"), FileError);
}

}  // namespace
}  // namespace lomu

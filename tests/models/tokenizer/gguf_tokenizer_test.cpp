// Tokenizers inside GGUF files, made byte by byte from the small ones of tests/data/tokenizer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "models/tokenizer/sentencepiece.h"
#include "models/tokenizer/tokenizer_json.h"
#include "models/tokenizer/verify_cases.h"
#include "tests/models/files/gguf_bytes.h"
#include "tests/models/tokenizer/small_tokenizer.h"

namespace lomu {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

// The keys of a GGUF tokenizer; each test adds, changes or leaves out some.
class GgufTokenizer {
 public:
  explicit GgufTokenizer(const std::string& model) { string("tokenizer.ggml.model", model); }

  GgufTokenizer& string(std::string_view key, std::string_view value) {
    body_.key_string(key, value);
    return count();
  }
  GgufTokenizer& u32(std::string_view key, std::uint32_t value) {
    body_.key_u32(key, value);
    return count();
  }
  GgufTokenizer& boolean(std::string_view key, bool value) {
    body_.string(key).put(7U).put(static_cast<std::uint8_t>(value));
    return count();
  }
  GgufTokenizer& strings(std::string_view key, const std::vector<std::string>& values) {
    body_.string(key).put(9U).put(8U).put(std::uint64_t{values.size()});
    for (const std::string& value : values) body_.string(value);
    return count();
  }
  template <class T>
  GgufTokenizer& numbers(std::string_view key, std::uint32_t type, const std::vector<T>& values) {
    body_.string(key).put(9U).put(type).put(std::uint64_t{values.size()});
    for (const T value : values) body_.put(value);
    return count();
  }

  [[nodiscard]] TokenizerSpec read() const {
    const test::TemporaryFolder folder;
    test::GgufBytes file;
    file.header(0, keys_).raw(body_.bytes()).align();
    folder.write("model.gguf", file.bytes());
    return read_tokenizer_spec(folder.path() / "model.gguf");
  }

 private:
  GgufTokenizer& count() {
    ++keys_;
    return *this;
  }
  test::GgufBytes body_;
  std::uint64_t keys_ = 0;
};

std::vector<std::string> tokens_of(const nlohmann::json& json) {
  std::vector<std::string> tokens(json["model"]["vocab"].size());
  for (const auto& [token, id] : json["model"]["vocab"].items()) tokens[id.get<std::size_t>()] = token;
  return tokens;
}

// The first three tokens are control tokens (type 3), the rest normal (1).
GgufTokenizer byte_level(const std::string& name, const std::string& pre) {
  const auto json = test::small_json(name);
  const auto tokens = tokens_of(json);
  std::vector<std::int32_t> types(tokens.size(), 1);
  std::fill_n(types.begin(), 3, 3);
  std::vector<std::string> merges;
  for (const auto& merge : json["model"]["merges"]) {
    merges.push_back(merge.is_string() ? merge.get<std::string>()
                                       : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  GgufTokenizer file("gpt2");
  if (!pre.empty()) file.string("tokenizer.ggml.pre", pre);
  file.strings("tokenizer.ggml.tokens", tokens).numbers("tokenizer.ggml.token_type", 5, types);
  file.strings("tokenizer.ggml.merges", merges);
  return file;
}

void expect_cases_pass(const TokenizerSpec& spec, const std::string& name) {
  for (const auto& check : verify_tokenizer_cases(Tokenizer(spec), test::data_folder() / name / "cases.jsonl")) {
    EXPECT_TRUE(check.pass) << check.name << " " << check.quantity << ": got " << check.got << ", expected "
                            << check.expected;
  }
}

TEST(GgufTokenizer, NamedPipelinesAreThoseOfTheirModels) {
  expect_cases_pass(byte_level("gpt2", "gpt-2").read(), "gpt2");
  expect_cases_pass(byte_level("smollm2", "smollm").read(), "smollm2");
  expect_cases_pass(byte_level("qwen2", "qwen2").read(), "qwen2");
  expect_cases_pass(byte_level("gpt4o", "gpt-4o").read(), "gpt4o");
  expect_cases_pass(byte_level("llama3", "llama-bpe").u32("tokenizer.ggml.bos_token_id", 0).read(), "llama3");
}

TEST(GgufTokenizer, GivesTheFingerprintOfItsTokenizerJson) {
  EXPECT_EQ(Tokenizer(byte_level("smollm2", "smollm").read()).fingerprint(),
            test::small_tokenizer("smollm2").fingerprint());
}

TEST(GgufTokenizer, ReadsSpecialIdsAndTemplate) {
  const TokenizerSpec spec = byte_level("smollm2", "smollm")
                                 .u32("tokenizer.ggml.bos_token_id", 1)
                                 .u32("tokenizer.ggml.eos_token_id", 2)
                                 .u32("tokenizer.ggml.padding_token_id", 0)
                                 .boolean("tokenizer.ggml.add_bos_token", true)
                                 .boolean("tokenizer.ggml.add_eos_token", true)
                                 .string("tokenizer.chat_template", "T")
                                 .read();
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  EXPECT_EQ(tokenizer.pad(), 0);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_THAT(tokenizer.encode("", true), ElementsAre(1, 2));
  EXPECT_EQ(tokenizer.chat_template(), "T");
}

TEST(GgufTokenizer, SentencePieceScoresBecomeMerges) {
  // Scores as SentencePiece gives them: minus the rank of the merge that made the token.
  const auto json = test::small_json("llama2");
  const auto tokens = tokens_of(json);
  std::vector<float> scores(tokens.size(), -1e6F);
  float rank = 0;
  for (const auto& merge : json["model"]["merges"]) {
    const std::string made = merge[0].get<std::string>() + merge[1].get<std::string>();
    scores[json["model"]["vocab"][made].get<std::size_t>()] = rank--;
  }
  std::vector<std::int32_t> types(tokens.size(), 1);
  std::fill_n(types.begin(), 3, 3);
  const TokenizerSpec spec = GgufTokenizer("llama")
                                 .strings("tokenizer.ggml.tokens", tokens)
                                 .numbers("tokenizer.ggml.scores", 6, scores)
                                 .numbers("tokenizer.ggml.token_type", 5, types)
                                 .u32("tokenizer.ggml.bos_token_id", 1)
                                 .read();
  expect_cases_pass(spec, "llama2");
}

TEST(SentencePiece, EveryWayToJoinTwoTokensIsAMergeBestScoreFirst) {
  const std::vector<std::pair<std::string, std::int32_t>> vocab = {
      {"a", 0}, {"b", 1}, {"ab", 2}, {"abb", 3}, {"bb", 4}};
  EXPECT_THAT(merges_from_scores(vocab, {-9, -9, -1, -3, -2}),
              ElementsAre(Pair("a", "b"), Pair("b", "b"), Pair("ab", "b"), Pair("a", "bb")));
}

template <class ErrorType>
void expect_refused(const GgufTokenizer& file, const std::string& message) {
  try {
    const Tokenizer accepted(file.read());
    ADD_FAILURE() << "accepted; expected: " << message;
  } catch (const ErrorType& error) {
    EXPECT_THAT(error.what(), HasSubstr(message));
  }
}

TEST(GgufTokenizer, RefusesWhatIsBrokenOrUnknown) {
  expect_refused<UnsupportedError>(byte_level("gpt2", "no-such-model"), "no-such-model");
  expect_refused<UnsupportedError>(GgufTokenizer("bert").strings("tokenizer.ggml.tokens", {"a"}), "bert");
  expect_refused<FormatError>(GgufTokenizer("gpt2").string("tokenizer.ggml.pre", "gpt-2"), "tokens is missing");
  expect_refused<FormatError>(
      GgufTokenizer("gpt2").string("tokenizer.ggml.pre", "gpt-2").strings("tokenizer.ggml.tokens", {"a"}),
      "merges is missing");
  expect_refused<FormatError>(byte_level("gpt2", "gpt-2").u32("tokenizer.ggml.eos_token_id", 1U << 20), "eos_token_id");
  expect_refused<FormatError>(GgufTokenizer("gpt2")
                                  .string("tokenizer.ggml.pre", "gpt-2")
                                  .strings("tokenizer.ggml.tokens", {"a", "b"})
                                  .strings("tokenizer.ggml.merges", {"a b"}),
                              "\"ab\"");
  expect_refused<FormatError>(GgufTokenizer("gpt2")
                                  .string("tokenizer.ggml.pre", "gpt-2")
                                  .strings("tokenizer.ggml.tokens", {"a", "\xC3"})
                                  .strings("tokenizer.ggml.merges", {}),
                              "not valid UTF-8");
  expect_refused<FormatError>(GgufTokenizer("llama").strings("tokenizer.ggml.tokens", {"a"}), "scores");
  expect_refused<FormatError>(GgufTokenizer("gpt2")
                                  .strings("tokenizer.ggml.tokens", {"a"})
                                  .numbers<std::int32_t>("tokenizer.ggml.token_type", 5, {1, 1}),
                              "token_type");
}

}  // namespace
}  // namespace lomu

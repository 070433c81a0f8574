// Files that are damaged, contradictory or ask for what is not implemented: one clear error each, never a crash.
#include <gtest/gtest.h>

#include <functional>

#include "tests/models/tokenizer/small_tokenizer.h"

namespace lomu {
namespace {

using nlohmann::json;

struct Change {
  const char* name;
  std::function<void(json&)> apply;
  const char* message;  // a part of what() or where()
};

template <class ErrorType>
void expect_refused(const Change& change) {
  json tokenizer = test::small_json("gpt2");
  change.apply(tokenizer);
  try {
    test::load_text(tokenizer.dump());
    ADD_FAILURE() << change.name << " was accepted";
  } catch (const ErrorType& error) {
    EXPECT_NE((std::string(error.what()) + error.where()).find(change.message), std::string::npos)
        << change.name << ": " << error.what();
    EXPECT_NE(error.where(), "") << change.name << ": " << error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << change.name << " gave another kind of error: " << error.what();
  }
}

json added(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", false}};
}

TEST(BrokenTokenizer, ContradictionsAreFormatErrors) {
  const Change changes[] = {
      {"a merge of a missing token",
       [](json& j) {
         j["model"]["merges"].push_back({"zzzz", "a"});
       },
       "zzzz"},
      {"a merge into a missing token",
       [](json& j) {
         j["model"]["merges"].push_back({"z", "q"});
       },
       "zq"},
      {"a merge of three", [](json& j) { j["model"]["merges"].push_back("a b c"); }, "merges"},
      {"a merge that is a number", [](json& j) { j["model"]["merges"].push_back(7); }, "merges"},
      {"no merges", [](json& j) { j["model"].erase("merges"); }, "merges"},
      {"two tokens with one id", [](json& j) { j["model"]["vocab"]["zzzz"] = 40; }, "id 40 belongs to two tokens"},
      {"a negative id", [](json& j) { j["model"]["vocab"]["zzzz"] = -1; }, "zzzz"},
      {"a huge id", [](json& j) { j["model"]["vocab"]["zzzz"] = 2147483647; }, "zzzz"},
      {"an id beyond 64 bits", [](json& j) { j["model"]["vocab"]["zzzz"] = 18446744073709551615U; }, "zzzz"},
      {"an id that is text", [](json& j) { j["model"]["vocab"]["zzzz"] = "7"; }, "zzzz"},
      {"no vocabulary", [](json& j) { j["model"].erase("vocab"); }, "vocab"},
      {"an empty vocabulary",
       [](json& j) {
         j["model"]["vocab"] = json::object();
         j["model"]["merges"] = json::array();
         j["added_tokens"] = json::array();
       },
       "empty"},
      {"no model", [](json& j) { j.erase("model"); }, "model"},
      {"an added token with another's id", [](json& j) { j["added_tokens"].push_back(added(40, "<new>")); }, "<new>"},
      {"an added token with a second id", [](json& j) { j["added_tokens"].push_back(added(9999, "the")); }, "9999"},
      {"an added token after a gap", [](json& j) { j["added_tokens"].push_back(added(9999, "<new>")); },
       "next free id"},
      {"an empty added token", [](json& j) { j["added_tokens"].push_back(added(560, "")); }, "empty"},
      {"an added token without id", [](json& j) { j["added_tokens"][0].erase("id"); }, "added_tokens[0].id"},
      {"an unknown token that is not there", [](json& j) { j["model"]["unk_token"] = "<none>"; }, "<none>"},
      {"a pre-tokenizer without type", [](json& j) { j["pre_tokenizer"] = json::object(); }, "pre_tokenizer.type"},
      {"a split without pattern",
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "Split"}, {"behavior", "Isolated"}};
       },
       "pattern"},
      {"a template of an unknown token",
       [](json& j) {
         j["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}}},
                                {"pair", json::array()},
                                {"special_tokens", json::object()}};
       },
       "<s>"},
      {"a template of an id out of range",
       [](json& j) {
         j["post_processor"] = {{"type", "BertProcessing"}, {"sep", {"a", 99999}}, {"cls", {"b", 1}}};
       },
       "99999"},
  };
  for (const Change& change : changes) expect_refused<FormatError>(change);
}

TEST(BrokenTokenizer, WhatIsNotImplementedIsRefusedByName) {
  const auto step = [](const char* stage, json value) { return [=](json& j) { j[stage] = value; }; };
  const Change changes[] = {
      {"a model", [](json& j) { j["model"]["type"] = "Unigram"; }, "Unigram"},
      {"dropout", [](json& j) { j["model"]["dropout"] = 0.1; }, "dropout"},
      {"a subword prefix", [](json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
       "continuing_subword_prefix"},
      {"a word suffix", [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix"},
      {"a normalizer", step("normalizer", {{"type", "NFKC"}}), "NFKC"},
      {"a nested normalizer", step("normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}}),
       "Lowercase"},
      {"a pre-tokenizer", step("pre_tokenizer", {{"type", "Whitespace"}}), "Whitespace"},
      {"a behaviour", step("pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Odd"}}),
       "Odd"},
      {"a pattern",
       step("pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "\\w+"}}}, {"behavior", "Isolated"}}), "\\w"},
      {"a decoder", step("decoder", {{"type", "WordPiece"}}), "WordPiece"},
      {"a post-processor", step("post_processor", {{"type", "Other"}}), "Other"},
  };
  for (const Change& change : changes) expect_refused<UnsupportedError>(change);
}

TEST(BrokenTokenizer, TruncatedAnywhereItIsAnError) {
  const std::string whole = test::small_json("gpt2").dump();
  for (std::size_t size = 0; size < whole.size(); size += 997) {
    EXPECT_THROW(test::load_text(whole.substr(0, size)), FormatError) << size << " bytes";
  }
}

TEST(BrokenTokenizer, DeepNestingIsAnError) {
  const std::string deep = test::repeat("[", 100'000);
  EXPECT_THROW(test::load_text(deep), FormatError);
  EXPECT_THROW(test::load_text("{\"model\":" + deep), FormatError);
}

TEST(BrokenTokenizer, MissingFilesSaySo) {
  const test::TemporaryFolder folder;
  EXPECT_THROW(Tokenizer::load(folder.path()), FileError);
  EXPECT_THROW(Tokenizer::load(folder.path() / "none"), FileError);
  EXPECT_THROW(Tokenizer::load(folder.path() / "none.gguf"), FileError);
}

TEST(BrokenTokenizer, ABadNeighbourIsNamed) {
  const std::string good = test::small_json("gpt2").dump();
  EXPECT_THROW(test::load_text(good, "{"), FormatError);
  EXPECT_THROW(test::load_text(good, R"({"chat_template": 7})"), FormatError);
}

}  // namespace
}  // namespace lomu

#include "engine/data/demo_task.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "kernels/error.h"
#include "tests/engine/data/scratch.h"

namespace lomu {
namespace {

using Json = nlohmann::json;

constexpr DemoPart kParts[] = {DemoPart::kTrain, DemoPart::kValidation, DemoPart::kTest};

TEST(DemoTask, AnswersAreTheRecordAsJson) {
  for (const DemoPart part : kParts) {
    for (std::uint64_t i = 0; i < 500; ++i) {
      const DemoSample sample = demo_sample(1, part, i);
      const Json json = Json::parse(sample.answer);
      EXPECT_EQ(json.size(), 5u);
      EXPECT_EQ(json.at("name"), sample.order.name);
      EXPECT_EQ(json.at("qty"), sample.order.quantity);
      EXPECT_EQ(json.at("item"), sample.order.item);
      const std::string total = json.at("total");
      EXPECT_EQ(std::llround(std::stod(total) * 100), sample.order.cents);
      EXPECT_TRUE(total.ends_with(sample.order.currency));
      EXPECT_EQ(json.at("date").get<std::string>().size(), 10u);
      EXPECT_EQ(sample.answer.find_first_of("\n\r"), std::string::npos);
    }
  }
}

TEST(DemoTask, TheSentenceHoldsWhatTheAnswerAsksFor) {
  for (const DemoPart part : kParts) {
    for (std::uint64_t i = 0; i < 500; ++i) {
      const DemoSample sample = demo_sample(2, part, i);
      EXPECT_NE(sample.sentence.find(sample.order.name), std::string::npos) << sample.sentence;
      EXPECT_NE(sample.sentence.find(sample.order.item), std::string::npos) << sample.sentence;
      EXPECT_NE(sample.sentence.find(std::to_string(sample.order.year)), std::string::npos) << sample.sentence;
      EXPECT_NE(sample.sentence.find(std::to_string(sample.order.cents / 100)), std::string::npos) << sample.sentence;
      EXPECT_EQ(sample.sentence.find_first_of("{}"), std::string::npos) << sample.sentence;
      EXPECT_FALSE(sample.sentence.front() >= 'a' && sample.sentence.front() <= 'z') << sample.sentence;
    }
  }
}

TEST(DemoTask, PartsShareNoWords) {
  std::set<std::string_view> seen;
  std::size_t words = 0;
  for (const DemoPart part : kParts) {
    const DemoWords lists = demo_words(part);
    for (const auto list : {lists.first_names, lists.qualities, lists.things, lists.patterns}) {
      seen.insert(list.begin(), list.end());
      words += list.size();
    }
  }
  EXPECT_EQ(seen.size(), words);
  std::set<std::string_view> surnames;
  std::size_t names = 0;
  for (const DemoPart part : kParts) {
    surnames.insert(demo_words(part).last_names.begin(), demo_words(part).last_names.end());
    names += demo_words(part).last_names.size();
  }
  EXPECT_EQ(surnames.size(), names);
  EXPECT_GE(demo_words(DemoPart::kTrain).patterns.size(), 40u);
  EXPECT_GE(demo_words(DemoPart::kTest).patterns.size(), 10u);
}

TEST(DemoTask, NoNameOrItemOfTheTestOccursInTraining) {
  std::set<std::string> names;
  std::set<std::string> items;
  std::set<std::size_t> patterns;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const DemoSample sample = demo_sample(1, DemoPart::kTrain, i);
    names.insert(sample.order.name);
    items.insert(sample.order.item);
    patterns.insert(sample.pattern);
  }
  EXPECT_EQ(patterns.size(), demo_words(DemoPart::kTrain).patterns.size());
  std::size_t unseen_patterns = 0;
  for (const DemoPart part : {DemoPart::kValidation, DemoPart::kTest}) {
    for (std::uint64_t i = 0; i < 200; ++i) {
      const DemoSample sample = demo_sample(1, part, i);
      EXPECT_FALSE(names.contains(sample.order.name));
      EXPECT_FALSE(items.contains(sample.order.item));
      unseen_patterns += patterns.contains(sample.pattern) ? 0 : 1;
    }
  }
  EXPECT_EQ(unseen_patterns, 200u);
}

TEST(DemoTask, TrainingLinesDiffer) {
  std::set<std::string> sentences;
  for (std::uint64_t i = 0; i < 3000; ++i) sentences.insert(demo_sample(1, DemoPart::kTrain, i).sentence);
  EXPECT_EQ(sentences.size(), 3000u);
}

TEST(DemoTask, TheSameFilesEveryTime) {
  const Scratch scratch;
  const DemoSizes sizes{.train = 50, .validation = 10, .test = 20};
  write_demo_data(scratch.folder() / "a", 4, sizes);
  write_demo_data(scratch.folder() / "b", 4, sizes);
  write_demo_data(scratch.folder() / "c", 5, sizes);
  for (const char* name : {"train.jsonl", "validation.jsonl", "test.jsonl"}) {
    const std::string a = Scratch::read(scratch.folder() / "a" / name);
    EXPECT_EQ(a, Scratch::read(scratch.folder() / "b" / name));
    EXPECT_NE(a, Scratch::read(scratch.folder() / "c" / name));
  }
  const std::string test = Scratch::read(scratch.folder() / "a" / "test.jsonl");
  EXPECT_EQ(std::ranges::count(test, '\n'), 20);
  const Json first = Json::parse(test.substr(0, test.find('\n')));
  EXPECT_EQ(first.at("messages").size(), 3u);
  EXPECT_EQ(first.at("messages").at(2).at("role"), "assistant");
}

TEST(DemoTask, AFolderThatCannotBeMadeIsNamed) {
  const Scratch scratch;
  const auto file = scratch.write("file", "x");
  EXPECT_THROW(write_demo_data(file / "inside", 1, {}), FileError);
}

TEST(DemoScore, ExactMatchLooksPastOuterWhiteSpaceOnly) {
  EXPECT_TRUE(exact_match(R"({"a":1})", " {\"a\":1}\n"));
  EXPECT_FALSE(exact_match(R"({"a":1})", R"({"a": 1})"));
  EXPECT_TRUE(exact_match("", " \n"));
}

TEST(DemoScore, FieldsCountOneByOne) {
  const std::string expected = R"({"name":"A B","qty":2,"item":"x","total":"1.00 USD"})";
  EXPECT_EQ(field_accuracy(expected, expected), 1.0);
  EXPECT_EQ(field_accuracy(expected, R"({"qty": 2, "name": "A B", "item": "y"})"), 0.5);
  EXPECT_EQ(field_accuracy(expected, R"({"qty":"2"})"), 0.0);
  EXPECT_EQ(field_accuracy(expected, "no JSON"), 0.0);
  EXPECT_EQ(field_accuracy(expected, "[1]"), 0.0);
  EXPECT_THROW(field_accuracy("x", "{}"), FormatError);
}

}  // namespace
}  // namespace lomu

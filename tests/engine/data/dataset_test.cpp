#include "engine/data/dataset.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/data/batch.h"
#include "engine/data/dataset_builder.h"
#include "engine/data/step_plan.h"
#include "kernels/error.h"
#include "tests/engine/data/scratch.h"
#include "tests/engine/data/small_tokenizer.h"

namespace lomu {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

RecordTokenizer tokenizer_with(const TokenizeOptions& options = {}) {
  const Tokenizer tokenizer = small_tokenizer();
  return {tokenizer, small_chat(tokenizer), options};
}

std::string pair_line(const std::string& prompt, const std::string& completion) {
  return fmt::format("{{\"prompt\": \"{}\", \"completion\": \"{}\"}}\n", prompt, completion);
}

// A source and a cache folder, and the data set made of them.
class DatasetTest : public testing::Test {
 protected:
  DatasetFile locate(const std::string& content, const RecordTokenizer& tokenizer, DataOptions options = {}) {
    options_ = options;
    options_.source = scratch_.write("data.jsonl", content);
    return locate_dataset(scratch_.folder() / "cache", options_, tokenizer);
  }
  Dataset build(const std::string& content, const TokenizeOptions& tokenize = {}, const DataOptions& options = {}) {
    const RecordTokenizer tokenizer = tokenizer_with(tokenize);
    return open_or_build(locate(content, tokenizer, options), options_, tokenizer, &rebuilt_);
  }

  Scratch scratch_;
  DataOptions options_;
  bool rebuilt_ = false;
};

TEST_F(DatasetTest, HoldsEveryExampleInOrder) {
  const Dataset data = build("\xEF\xBB\xBF" + pair_line("ab", "c") + "\r\n" + pair_line("", "zz"));
  ASSERT_EQ(data.size(), 2u);
  EXPECT_THAT(data.ids(0), ElementsAre(kJoined, 'c', kTextEnd));
  EXPECT_THAT(data.labels(0), ElementsAre(kNotSupervised, 'c', kTextEnd));
  EXPECT_THAT(data.ids(1), ElementsAre('z', 'z', kTextEnd));
  EXPECT_THAT(data.labels(1), ElementsAre('z', 'z', kTextEnd));
  EXPECT_THAT(data.lengths(), ElementsAre(3, 3));
  EXPECT_THAT(data.supervised(), ElementsAre(2, 2));
  EXPECT_EQ(data.line(0), 1u);
  EXPECT_EQ(data.line(1), 3u);
  EXPECT_EQ(data.report().lines, 3u);
  EXPECT_EQ(data.report().blank, 1u);
  EXPECT_EQ(data.report().tokens, 6u);
  EXPECT_EQ(data.report().supervised, 4u);
}

TEST_F(DatasetTest, LeftOutLinesAreCountedAndShown) {
  std::string content = pair_line("a", "b") + "{broken\n" + pair_line("a", std::string(100, 'x'));
  content += R"({"messages": [{"role": "user", "content": "no answer"}]})"
             "\n";
  for (int i = 0; i < 5; ++i) content += "[]\n";
  const Dataset data = build(content, {.max_length = 50}, {.on_error = OnError::kSkip});
  const DataReport& report = data.report();
  EXPECT_EQ(report.examples, 1u);
  EXPECT_EQ(report.total_skipped(), 8u);
  const Skipped& broken = report.skipped[static_cast<std::size_t>(SkipReason::kBroken)];
  EXPECT_EQ(broken.count, 6u);
  ASSERT_EQ(broken.first.size(), 3u);
  EXPECT_EQ(broken.first[0].line, 2u);
  EXPECT_THAT(broken.first[0].what, HasSubstr("invalid JSON"));
  EXPECT_EQ(report.skipped[static_cast<std::size_t>(SkipReason::kTooLong)].first.at(0).line, 3u);
  EXPECT_EQ(report.skipped[static_cast<std::size_t>(SkipReason::kNothingToLearn)].first.at(0).line, 4u);
  const auto words = describe(report);
  EXPECT_THAT(words, testing::Contains(HasSubstr("left out, broken: 6 lines")));
  EXPECT_THAT(words, testing::Contains(HasSubstr("line 3: 102 tokens")));
  EXPECT_THAT(words, testing::Contains(HasSubstr("and 3 more")));
}

TEST_F(DatasetTest, TheFirstBrokenLineOfTheFileStops) {
  std::string content;
  for (int i = 0; i < 300; ++i) content += i == 123 || i == 40 || i == 299 ? "{\n" : pair_line("a", "b");
  for (const unsigned threads : {1u, 3u}) {
    try {
      build(content, {}, {.threads = threads});
      FAIL();
    } catch (const FormatError& error) {
      EXPECT_THAT(error.where(), testing::EndsWith("data.jsonl:41:2"));
    }
  }
  EXPECT_TRUE(std::filesystem::is_empty(scratch_.folder() / "cache"));
}

TEST_F(DatasetTest, TooLongUnderStopEndsTheRunEvenWhereBrokenLinesAreSkipped) {
  EXPECT_THROW(build(pair_line("a", std::string(100, 'x')), {.max_length = 50, .too_long = TooLong::kStop},
                     {.on_error = OnError::kSkip}),
               FormatError);
}

TEST_F(DatasetTest, NoExamplesIsAnErrorThatSaysWhy) {
  const auto message = [&](const std::string& content) -> std::string {
    try {
      build(content, {.max_length = 10}, {.on_error = OnError::kSkip});
    } catch (const FormatError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message(""), "the file has no records");
  EXPECT_EQ(message("\n \n"), "the file has no records");
  EXPECT_EQ(message(pair_line("", std::string(20, 'x'))),
            "none of its 1 records can be used: 1 too long (line 1: 21 tokens)");
}

TEST_F(DatasetTest, MissingSourceIsAFileError) {
  const RecordTokenizer tokenizer = tokenizer_with();
  DataOptions options;
  options.source = scratch_.folder() / "nothing.jsonl";
  EXPECT_THROW(locate_dataset(scratch_.folder(), options, tokenizer), FileError);
  options.source = scratch_.folder();
  EXPECT_THROW(locate_dataset(scratch_.folder(), options, tokenizer), FileError);
}

TEST_F(DatasetTest, IsMadeOnceAndFoundAgain) {
  const std::string content = pair_line("a", "b");
  build(content);
  EXPECT_TRUE(rebuilt_);
  build(content);
  EXPECT_FALSE(rebuilt_);
  build(content, {.max_length = 99});
  EXPECT_TRUE(rebuilt_);
  build(content + pair_line("c", "d"));
  EXPECT_TRUE(rebuilt_);
  build(content);
  EXPECT_FALSE(rebuilt_);
}

TEST_F(DatasetTest, EveryDamageIsSeenAndRepaired) {
  const std::string content = pair_line("ab", "c") + pair_line("d", "ef");
  const RecordTokenizer tokenizer = tokenizer_with();
  const DatasetFile file = locate(content, tokenizer);
  build_dataset(file, options_, tokenizer);
  const std::string good = Scratch::read(file.path);
  const auto refused = [&](const std::string& bytes) {
    std::ofstream(file.path, std::ios::binary) << bytes;
    try {
      Dataset::open(file.path, file.key);
      return false;
    } catch (const FormatError&) {
      return true;
    }
  };
  EXPECT_FALSE(refused(good));
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x41);
    EXPECT_TRUE(refused(bad)) << "byte " << i;
  }
  for (std::size_t size = 0; size < good.size(); ++size) EXPECT_TRUE(refused(good.substr(0, size))) << size;
  EXPECT_TRUE(refused(good + std::string(8, '\0')));
  EXPECT_THROW(Dataset::open(file.path, file.key + 1), FormatError);

  std::ofstream(file.path, std::ios::binary) << good.substr(0, good.size() / 2);
  EXPECT_EQ(open_or_build(file, options_, tokenizer, &rebuilt_).size(), 2u);
  EXPECT_TRUE(rebuilt_);
  EXPECT_EQ(Scratch::read(file.path), good);
}

TEST_F(DatasetTest, ThreadsDoNotChangeTheFile) {
  std::string content;
  for (int i = 0; i < 10000; ++i) {
    content += i % 7 == 3 ? "{\n" : pair_line(std::string(static_cast<std::size_t>(i % 13), 'p'), fmt::format("{}", i));
  }
  const RecordTokenizer tokenizer = tokenizer_with();
  DatasetFile file = locate(content, tokenizer, {.on_error = OnError::kSkip, .threads = 1});
  build_dataset(file, options_, tokenizer);
  const std::string one = Scratch::read(file.path);
  options_.threads = 5;
  build_dataset(file, options_, tokenizer);
  EXPECT_EQ(one, Scratch::read(file.path));
}

TEST_F(DatasetTest, AnUnwritableCacheIsNamed) {
  const auto blocker = scratch_.write("blocker", "x");
  const RecordTokenizer tokenizer = tokenizer_with();
  DatasetFile file = locate(pair_line("a", "b"), tokenizer);
  file.path = blocker / "inside" / "x.lomudata";
  EXPECT_THROW(build_dataset(file, options_, tokenizer), FileError);
}

TEST_F(DatasetTest, BatchesRestartPositionsAndCountPredictions) {
  const Dataset data = build(pair_line("a", "b") + pair_line("", "xyz") + pair_line("p", "q"));
  const Batch batch = make_batch(data, std::vector<std::uint32_t>{1, 0});
  EXPECT_THAT(batch.ids, ElementsAre('x', 'y', 'z', kTextEnd, kJoined, kTextEnd));
  EXPECT_THAT(batch.labels, ElementsAre('x', 'y', 'z', kTextEnd, kNotSupervised, kTextEnd));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_THAT(batch.cu_seqlens, ElementsAre(0, 4, 6));
  EXPECT_EQ(batch.supervised, 4u);
  EXPECT_EQ(batch.documents(), 2u);
  const Batch none = make_batch(data, {});
  EXPECT_THAT(none.cu_seqlens, ElementsAre(0));
}

TEST_F(DatasetTest, APlanOfAPartCountsWhatItsBatchesHold) {
  std::string content;
  for (int i = 0; i < 100; ++i)
    content += pair_line(std::string(static_cast<std::size_t>(i % 9), 'p'), fmt::format("{}", i));
  const Dataset data = build(content);
  const Split split = split_validation(static_cast<std::uint32_t>(data.size()), 0.2, 1);
  const DatasetPart train(data, split.train);
  const DatasetPart validation(data, split.validation);
  EXPECT_EQ(train.size() + validation.size(), data.size());

  StepPlan plan(train.lengths(), train.supervised(),
                {.packing = {.seed = 1, .micro_batch_tokens = 40}, .micro_batches = 3});
  std::uint64_t examples = 0;
  for (std::uint64_t s = 0; s < plan.total_steps(); ++s) {
    const PlannedStep step = plan.step(s);
    std::uint64_t tokens = 0;
    std::uint64_t supervised = 0;
    for (const auto& micro_batch : step.micro_batches) {
      const Batch batch = train.batch(micro_batch.examples);
      EXPECT_LE(batch.tokens(), 40u);
      tokens += batch.tokens();
      supervised += batch.supervised;
      examples += batch.documents();
    }
    EXPECT_EQ(tokens, step.tokens);
    EXPECT_EQ(supervised, step.supervised);
  }
  EXPECT_EQ(examples, train.size());
}

TEST(LengthHistogram, CountsByPowersOfTwo) {
  const std::vector<std::uint32_t> lengths{1, 2, 3, 4, 5, 1000, 1024, 1025};
  const auto histogram = length_histogram(lengths);
  std::vector<std::pair<std::uint32_t, std::uint64_t>> got;
  for (const auto& bucket : histogram) got.emplace_back(bucket.up_to, bucket.examples);
  EXPECT_THAT(got, ElementsAre(testing::Pair(1, 1), testing::Pair(2, 1), testing::Pair(4, 2), testing::Pair(8, 1),
                               testing::Pair(1024, 2), testing::Pair(2048, 1)));
}

}  // namespace
}  // namespace lomu

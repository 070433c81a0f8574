#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "kernels/error.h"
#include "models/decoder/generation.h"
#include "models/decoder/sampler.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

class Generation : public testing::TestWithParam<std::string> {
 protected:
  Generation() : ops_(make_reference_ops(kF64Precision)), model_(GetParam(), *ops_) {
    AdapterOptions options;
    options.rank = 3;
    adapters_.emplace(model_.config(), options, model_.files(), std::nullopt, memory_);
    randomize(*adapters_);
    adapted_.emplace(model_.weights(), &*adapters_, *ops_, memory_);
  }

  /// Logits after the last token, without a cache.
  std::vector<double> last_logits(const std::vector<std::int32_t>& ids) {
    RandomBatch batch({static_cast<std::int64_t>(ids.size())});
    batch.ids = ids;
    const auto tokens = static_cast<std::int64_t>(ids.size());
    Decoder decoder(*adapted_, *ops_, memory_, {tokens, 1, tokens, false});
    std::vector<double> out(41);
    const std::vector<std::int32_t> last = {static_cast<std::int32_t>(tokens) - 1};
    decoder.logits(batch.view(), last, {out.data(), DType::kF64, 1, 41});
    return out;
  }

  std::unique_ptr<Ops> ops_;
  TinyModel model_;
  Memory memory_;
  std::optional<AdapterSet> adapters_;
  std::optional<AdaptedModel> adapted_;
};

std::vector<double> row(const Tensor& t, std::int64_t i) {
  return {t.row<double>(i), t.row<double>(i) + t.cols};
}

TEST_P(Generation, WithACacheGivesTheLogitsOfTheWholeText) {
  // Chunks of 4 tokens cut the prompts of 9 and 6; the sequences then grow side by side.
  GenerationSession session(*adapted_, *ops_, memory_, {3, 20, 4});
  std::array<std::vector<std::int32_t>, 3> texts = {RandomBatch({9}, 1).ids, RandomBatch({1}, 2).ids,
                                                    RandomBatch({6}, 3).ids};
  std::vector<SequenceInput> inputs;
  for (std::int64_t i = 0; i < 3; ++i) inputs.push_back({i, texts[static_cast<std::size_t>(i)]});
  for (int step = 0; step < 5; ++step) {
    const Tensor logits = session.append(inputs);
    ASSERT_EQ(logits.rows, 3);
    for (std::int64_t i = 0; i < 3; ++i) {
      auto& text = texts[static_cast<std::size_t>(i)];
      EXPECT_LT(relative_error(row(logits, i), last_logits(text)), 1e-13) << "sequence " << i << ", step " << step;
      EXPECT_EQ(session.length(i), static_cast<std::int64_t>(text.size()));
      text.push_back(choose_token(logits, i, {}, i, session.length(i)));
      inputs[static_cast<std::size_t>(i)].ids = std::span(text).last(1);
    }
  }
}

TEST_P(Generation, PlacesCanBeUsedAgainAndSequencesNeverMeet) {
  GenerationSession session(*adapted_, *ops_, memory_, {2, 20, 16});
  const auto first = RandomBatch({7}, 1).ids;
  const auto second = RandomBatch({5}, 2).ids;
  const std::vector<SequenceInput> both = {{1, first}, {0, second}};
  session.append(both);
  session.truncate(1, 3);
  std::vector<std::int32_t> text(first.begin(), first.begin() + 3);
  text.insert(text.end(), second.begin(), second.end());
  const std::vector<SequenceInput> more = {{1, second}};
  EXPECT_LT(relative_error(row(session.append(more), 0), last_logits(text)), 1e-13);
}

TEST_P(Generation, PlanPredictsExactlyWhatIsAllocated) {
  const GenerationCapacity capacity{3, 20, 70};
  Memory memory;
  const GenerationSession session(*adapted_, *ops_, memory, capacity);
  EXPECT_EQ(memory.current_total(),
            GenerationSession::plan(model_.config(), adapters_->pairs(), *ops_, capacity).bytes());
}

INSTANTIATE_TEST_SUITE_P(Families, Generation, testing::Values("llama", "mistral", "qwen3"));

TEST(GenerationErrors, AreToldBeforeAnythingIsRun) {
  const auto ops = make_reference_ops(kF32Precision);
  const TinyModel model("llama", *ops, false);
  Memory memory;
  const AdaptedModel base(model.weights(), nullptr, *ops, memory);
  GenerationSession session(base, *ops, memory, {2, 5, 4});
  const std::vector<std::int32_t> fine = {1, 2, 3};
  const std::vector<std::int32_t> wrong = {1, 41};
  const std::vector<std::int32_t> none;
  const std::vector<std::int32_t> six(6, 1);
  for (const std::vector<SequenceInput>& inputs : std::vector<std::vector<SequenceInput>>{
           {{2, fine}}, {{-1, fine}}, {{0, fine}, {0, fine}}, {{0, fine}, {1, wrong}}, {{0, none}}, {{0, six}}}) {
    EXPECT_THROW(session.append(inputs), Error);
    EXPECT_EQ(session.length(0), 0);
  }
  const std::vector<SequenceInput> ok = {{0, fine}};
  session.append(ok);
  EXPECT_THROW(session.append(ok), Error);
  EXPECT_THROW(session.truncate(0, 4), Error);
  EXPECT_THROW(GenerationSession(base, *ops, memory, {5, 5, 4}), Error);
}

class Sampler : public testing::Test {
 protected:
  static constexpr std::int64_t kWords = 6;
  /// Probabilities 0.4, 0.3, 0.1, 0.1, 0.06, 0.04.
  Sampler() {
    for (std::size_t i = 0; i < kWords; ++i) logits_[i] = std::log(std::array{0.4, 0.3, 0.1, 0.1, 0.06, 0.04}[i]);
  }
  [[nodiscard]] std::array<double, kWords> frequencies(const SamplingOptions& options) {
    constexpr std::int64_t kDraws = 20000;
    std::array<double, kWords> counts{};
    for (std::int64_t i = 0; i < kDraws; ++i) {
      counts[static_cast<std::size_t>(choose_token(tensor_, 0, options, i % 3, i))] += 1.0 / kDraws;
    }
    return counts;
  }
  std::array<double, kWords> logits_{};
  Tensor tensor_{logits_.data(), DType::kF64, 1, kWords};
};

TEST_F(Sampler, GreedyTakesTheLargestAndTheLowestOfEqualOnes) {
  EXPECT_EQ(choose_token(tensor_, 0, {}, 0, 0), 0);
  logits_ = {1, 5, 2, 5, 0, 0};
  EXPECT_EQ(choose_token(tensor_, 0, {}, 0, 0), 1);
}

TEST_F(Sampler, DrawsWithTheProbabilitiesOfTheSoftmax) {
  // 20000 draws: a frequency's standard deviation is below 0.0035; five of them.
  const auto seen = frequencies({1, 1, 11});
  const std::array expected{0.4, 0.3, 0.1, 0.1, 0.06, 0.04};
  for (std::size_t i = 0; i < kWords; ++i) EXPECT_NEAR(seen[i], expected[i], 0.0175) << i;
}

TEST_F(Sampler, TopPKeepsTheSmallestSetThatSuffices) {
  const auto seen = frequencies({1, 0.75, 11});  // 0.4 + 0.3 + 0.1 reach 0.75; of the equal ones the lower id
  EXPECT_NEAR(seen[0], 0.5, 0.0175);
  EXPECT_NEAR(seen[1], 0.375, 0.0175);
  EXPECT_NEAR(seen[2], 0.125, 0.0175);
  EXPECT_EQ(seen[3] + seen[4] + seen[5], 0);
}

TEST_F(Sampler, TemperatureSharpens) {
  const auto seen = frequencies({0.5, 1, 11});  // squares of the probabilities, normalised by 0.2752
  EXPECT_NEAR(seen[0], 0.16 / 0.2752, 0.0175);
  EXPECT_NEAR(seen[1], 0.09 / 0.2752, 0.0175);
}

TEST_F(Sampler, AChoiceDependsOnSeedSequenceAndPositionAlone) {
  const SamplingOptions options{1, 1, 5};
  std::vector<std::int32_t> a;
  std::vector<std::int32_t> b;
  std::vector<std::int32_t> other_seed;
  for (std::int64_t i = 0; i < 64; ++i) a.push_back(choose_token(tensor_, 0, options, 2, i));
  for (std::int64_t i = 63; i >= 0; --i) b.insert(b.begin(), choose_token(tensor_, 0, options, 2, i));
  for (std::int64_t i = 0; i < 64; ++i) other_seed.push_back(choose_token(tensor_, 0, {1, 1, 6}, 2, i));
  EXPECT_EQ(a, b);
  EXPECT_NE(a, other_seed);
}

TEST_F(Sampler, RefusesImpossibleOptionsAndLogits) {
  EXPECT_THROW(validate({-1, 1, 0}), UsageError);
  EXPECT_THROW(validate({NAN, 1, 0}), UsageError);
  EXPECT_THROW(validate({1, 0, 0}), UsageError);
  EXPECT_THROW(validate({1, 1.5, 0}), UsageError);
  EXPECT_NO_THROW(validate({0.7, 0.9, 0}));
  logits_.fill(NAN);
  EXPECT_THROW(choose_token(tensor_, 0, {}, 0, 0), NumericError);
}

}  // namespace
}  // namespace lomu::test

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/error.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

using testing::HasSubstr;

/// A tiny model with adapters on everything, ready to train.
struct Fixture {
  explicit Fixture(const std::string& family, Precision precision = kF64Precision, double dropout = 0)
      : ops(make_reference_ops(precision)), model(family, *ops), adapters(make_adapters(dropout)) {
    randomize(adapters);
    adapted.emplace(model.weights(), &adapters, *ops, memory);
    decoder.emplace(*adapted, *ops, memory, DecoderCapacity{40, 40, 20, true});
  }

  AdapterSet make_adapters(double dropout) {
    AdapterOptions options;
    options.rank = 3;
    options.dropout = dropout;
    return {model.config(), options, model.files(), ops->precision().gradient, memory};
  }

  std::unique_ptr<Ops> ops;
  TinyModel model;
  Memory memory;
  AdapterSet adapters;
  std::optional<AdaptedModel> adapted;
  std::optional<Decoder> decoder;
};

class Packing : public testing::TestWithParam<std::string> {};

TEST_P(Packing, ChangesNeitherLossNorGradient) {
  Fixture f(GetParam());
  const RandomBatch packed({9, 1, 4, 2, 11});
  const double loss = f.decoder->forward_backward(packed.view(), 1);
  const auto gradient = gradients_of(f.adapters);
  double sum = 0;
  std::vector<double> gradient_sum(gradient.size(), 0.0);
  for (std::size_t d = 0; d < 5; ++d) {
    sum += f.decoder->forward_backward(packed.document(d).view(), 1);
    const auto part = gradients_of(f.adapters);
    for (std::size_t i = 0; i < part.size(); ++i) gradient_sum[i] += part[i];
  }
  EXPECT_NEAR(loss, sum, 1e-12 * sum);
  EXPECT_LT(relative_error(gradient, gradient_sum), 1e-12);
}

TEST_P(Packing, InAnyOrderGivesTheSame) {
  Fixture f(GetParam());
  const RandomBatch packed({9, 1, 4, 2, 11});
  const double loss = f.decoder->forward_backward(packed.view(), 1);
  const auto gradient = gradients_of(f.adapters);
  const RandomBatch other = packed.reordered({4, 2, 1, 0, 3});
  EXPECT_NEAR(f.decoder->forward_backward(other.view(), 1), loss, 1e-12 * loss);
  EXPECT_LT(relative_error(gradients_of(f.adapters), gradient), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Families, Packing, testing::Values("llama", "mistral", "qwen3"));

TEST(Decoder, EvaluationAndTrainingSeeTheSameLossWithoutDropout) {
  Fixture f("llama", kF32Precision);
  const RandomBatch batch({9, 5});
  std::vector<double> per_token(14, -1);
  const double loss = f.decoder->forward(batch.view(), per_token);
  EXPECT_EQ(f.decoder->forward_backward(batch.view(), 0.1), loss);
  EXPECT_NEAR(std::accumulate(per_token.begin(), per_token.end(), 0.0), loss, 1e-12 * loss);
  EXPECT_EQ(per_token[8], 0) << "a document's last token predicts nothing";
  EXPECT_EQ(per_token[13], 0);
  for (std::size_t t = 0; t + 1 < 14; ++t) {
    if (batch.labels[t + 1] == kNotSupervised) {
      EXPECT_EQ(per_token[t], 0) << t;
    }
  }
}

TEST(Decoder, GradientIsLinearInItsScale) {
  Fixture f("llama");
  const RandomBatch batch({9, 5});
  f.decoder->forward_backward(batch.view(), 1);
  auto once = gradients_of(f.adapters);
  f.decoder->forward_backward(batch.view(), 0.125);
  for (double& g : once) g *= 0.125;
  EXPECT_LT(relative_error(gradients_of(f.adapters), once), 1e-14);
}

TEST(Decoder, DropoutIsAFunctionOfTheKey) {
  Fixture f("llama", kF64Precision, 0.5);
  const RandomBatch batch({9, 5});
  const double without = f.decoder->forward(batch.view());
  const double first = f.decoder->forward_backward(batch.view(), 1, 7);
  const double other = f.decoder->forward_backward(batch.view(), 1, 8);
  EXPECT_NE(first, without);
  EXPECT_NE(first, other);
  EXPECT_EQ(f.decoder->forward_backward(batch.view(), 1, 7), first);
  EXPECT_EQ(f.decoder->forward(batch.view()), without);
}

TEST(Decoder, CountsTokensWhosePredictionIsSupervised) {
  RandomBatch batch({3, 1, 2});
  batch.labels = {1, 2, kNotSupervised, 4, 5, 6};
  EXPECT_EQ(Decoder::supervised_tokens(batch.view()), 2) << "2 after 1, 6 after 5; first labels are never predicted";
}

TEST(Decoder, WithoutSupervisedTokensClearsTheGradients) {
  Fixture f("llama");
  f.decoder->forward_backward(RandomBatch({8}).view(), 1);
  for (const std::vector<std::int64_t>& lengths : std::vector<std::vector<std::int64_t>>{{}, {1}, {1, 1}, {0, 0}}) {
    const RandomBatch batch(lengths);
    randomize(f.adapters);
    EXPECT_EQ(f.decoder->forward_backward(batch.view(), 1), 0);
    for (const double g : gradients_of(f.adapters)) ASSERT_EQ(g, 0);
    EXPECT_EQ(f.decoder->forward(batch.view()), 0);
  }
}

TEST(Decoder, EmptyDocumentsAreNothing) {
  Fixture f("llama");
  const RandomBatch batch({0, 5, 0, 0, 4, 0});
  const RandomBatch without = batch.reordered({1, 4});
  EXPECT_EQ(f.decoder->forward(batch.view()), f.decoder->forward(without.view()));
}

TEST(Decoder, RunsTheBaseModelWithoutAdapters) {
  Fixture f("qwen2");
  const AdaptedModel base(f.model.weights(), nullptr, *f.ops, f.memory);
  Decoder decoder(base, *f.ops, f.memory, {40, 40, 20, true});
  const RandomBatch batch({9, 5});
  const double loss = decoder.forward(batch.view());
  EXPECT_EQ(decoder.forward_backward(batch.view(), 1), loss);
  for (const PairInfo& pair : f.adapters.pairs()) std::fill(f.adapters.b(pair).begin(), f.adapters.b(pair).end(), 0.0F);
  f.adapted->refresh();
  EXPECT_EQ(f.decoder->forward(batch.view()), loss);
}

TEST(Decoder, LogitsComeInChunksOfTheHeadsCapacity) {
  Fixture f("llama");
  const RandomBatch batch({9, 5});
  Decoder small(*f.adapted, *f.ops, f.memory, {16, 4, 16, false});
  const std::vector<std::int32_t> rows = {13, 0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<double> a(rows.size() * 41);
  std::vector<double> b(rows.size() * 41);
  f.decoder->logits(batch.view(), rows, {a.data(), DType::kF64, 9, 41});
  small.logits(batch.view(), rows, {b.data(), DType::kF64, 9, 41});
  EXPECT_EQ(a, b);
}

class PlannedDecoder : public testing::TestWithParam<std::string> {};

TEST_P(PlannedDecoder, PredictsExactlyWhatIsAllocated) {
  const auto ops = make_reference_ops(kF32Precision);
  const TinyModel model(GetParam(), *ops);
  AdapterOptions options;
  options.rank = 5;
  options.layers = {{1, 2}};
  Memory memory;
  const auto pairs = plan_pairs(model.config(), options);
  AdapterSet adapters(model.config(), options, model.files(), DType::kF32, memory);
  AdaptedModel adapted(model.weights(), &adapters, *ops, memory);
  EXPECT_EQ(memory.current(Scope::kAdapters),
            adapter_set_bytes(pairs, DType::kF32) + AdaptedModel::packed_bytes(model.config(), pairs, *ops));
  for (const bool backward : {true, false}) {
    const DecoderCapacity capacity{100, 70, 33, backward};
    const DecoderPlan plan = Decoder::plan(model.config(), pairs, 0, *ops, capacity);
    Memory fresh;
    const Decoder decoder(adapted, *ops, fresh, capacity);
    for (const Scope scope : {Scope::kActivations, Scope::kWorkspace}) {
      EXPECT_EQ(fresh.current(scope), plan.bytes(scope)) << name_of(scope);
      EXPECT_GT(plan.bytes(scope), 0U);
    }
    EXPECT_EQ(fresh.current_total(), plan.bytes());
  }
}

INSTANTIATE_TEST_SUITE_P(Families, PlannedDecoder, testing::Values("llama", "qwen3"));

TEST(Decoder, NamesTheFirstTensorThatIsNotFinite) {
  Fixture f("llama", kF32Precision);
  const RandomBatch batch({9, 5});
  EXPECT_EQ(f.decoder->find_nonfinite(batch.view()), std::nullopt);
  const PairInfo& pair = f.adapters.pairs()[*f.adapters.find(weight_of(1, Site::kO))];
  f.adapters.b(pair)[0] = std::numeric_limits<float>::quiet_NaN();
  f.adapted->refresh();
  EXPECT_EQ(f.decoder->find_nonfinite(batch.view()), "block 1, residual stream after attention");
  EXPECT_TRUE(std::isnan(f.decoder->forward_backward(batch.view(), 1)));
  EXPECT_NE(f.adapters.first_nonfinite_gradient(), std::nullopt);
}

TEST(Decoder, ObserversSeeEveryBlockAndCanBeRemoved) {
  Fixture f("llama");
  std::vector<std::int64_t> blocks;
  f.decoder->observe([&](std::int64_t layer, Stage stage, const Tensor& t) {
    if (stage == Stage::kBlock) blocks.push_back(layer);
    EXPECT_EQ(t.dtype, DType::kF64);
  });
  f.decoder->forward(RandomBatch({9}).view());
  f.decoder->observe({});
  f.decoder->forward(RandomBatch({9}).view());
  EXPECT_EQ(blocks, (std::vector<std::int64_t>{0, 1, 2}));
}

TEST(Decoder, RefusesMalformedBatches) {
  Fixture f("llama");
  const auto expect_refused = [&](const RandomBatch& batch, const char* words) {
    try {
      f.decoder->forward(batch.view());
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr(words));
    }
  };
  RandomBatch batch({3, 2});
  batch.ids[1] = 41;
  expect_refused(batch, "token id 41 in a vocabulary of 41");
  batch.ids[1] = -1;
  expect_refused(batch, "token id -1");
  batch = RandomBatch({3, 2});
  batch.labels[4] = -7;
  expect_refused(batch, "label -7");
  batch = RandomBatch({3, 2});
  batch.positions[0] = 20;
  expect_refused(batch, "position 20");
  batch = RandomBatch({3, 2});
  batch.labels.pop_back();
  expect_refused(batch, "4 labels");
  batch = RandomBatch({3, 2});
  batch.cu_seqlens = {0, 6, 5};
  expect_refused(batch, "cu_seqlens");
  batch.cu_seqlens = {};
  expect_refused(batch, "cu_seqlens");
  expect_refused(RandomBatch({41}), "41 tokens in buffers for 40");
}

}  // namespace
}  // namespace lomu::test

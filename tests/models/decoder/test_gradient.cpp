// The whole backward pass against finite differences of the whole forward pass, in f64.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

struct GradientCase {
  std::string family;
  std::vector<Site> targets;
  std::optional<std::vector<std::int64_t>> layers;
  double dropout = 0;
  std::vector<WeightKind> full = {};
  Recompute recompute = Recompute::kNorms;
};

void PrintTo(const GradientCase& c, std::ostream* os) {
  *os << c.family << ", " << c.targets.size() << " sites" << (c.layers ? ", some layers" : "")
      << (c.dropout > 0 ? ", dropout" : "");
  for (const WeightKind kind : c.full) *os << ", " << hf_name({kind, 0});
}

const std::vector<Site> kAll{kAllSites.begin(), kAllSites.end()};
const std::vector<WeightKind> kAround{WeightKind::kEmbed, WeightKind::kFinalNorm, WeightKind::kAttnNorm,
                                      WeightKind::kMlpNorm};
const std::vector<WeightKind> kMatrices{WeightKind::kQ,    WeightKind::kK,  WeightKind::kV,   WeightKind::kO,
                                        WeightKind::kGate, WeightKind::kUp, WeightKind::kDown};

/// Central differences with step h err by h^2 / 6 f''' plus epsilon |f| / h. Factors are f32, so h is a power of two
/// and the difference is divided by the step that was really made: h = 2^-13 gives 2.5e-9 f''' and 1e-12 |f|.
constexpr float kStep = 0x1p-13F;
constexpr double kTolerance = 1e-6;
constexpr double kScale = 0.25;
constexpr std::uint64_t kDropoutKey = 99;

/// Compares four elements of every pair's gradient with differences of the loss.
void expect_gradients_of_the_loss(const TinyModel& model, const Ops& ops, AdapterSet& adapters,
                                  Recompute recompute = Recompute::kNorms) {
  randomize(adapters);
  Memory memory;
  AdaptedModel adapted(model.weights(), &adapters, ops, memory);
  const RandomBatch batch({7, 1, 5, 2});
  Decoder decoder(adapted, ops, memory, {16, 16, 8, true, recompute});
  std::size_t passed = 0;
  decoder.forward_backward(batch.view(), kScale, kDropoutKey, [&](std::size_t pairs) {
    EXPECT_GT(pairs, passed);
    passed = pairs;
  });
  EXPECT_EQ(passed, adapters.pairs().size());
  const std::vector<double> gradient = gradients_of(adapters);
  double largest = 0;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));
  ASSERT_GT(largest, 1e-3);

  const auto loss_at = [&](float& factor, float value) {
    factor = value;
    adapted.refresh();
    return kScale * decoder.forward_backward(batch.view(), kScale, kDropoutKey);
  };
  const auto expect_element = [&](std::int64_t i) {
    float& factor = adapters.factors()[static_cast<std::size_t>(i)];
    const float value = factor;
    const float above = value + kStep;
    const float below = value - kStep;
    const double change = loss_at(factor, above) - loss_at(factor, below);
    factor = value;
    EXPECT_NEAR(gradient[static_cast<std::size_t>(i)],
                change / (static_cast<double>(above) - static_cast<double>(below)), kTolerance * std::max(1.0, largest))
        << "element " << i;
  };
  for (const PairInfo& pair : adapters.pairs()) {
    SCOPED_TRACE(pair.name);
    if (!pair.full) {
      expect_element(pair.offset_a);
      expect_element(pair.offset_a + pair.size_a() - 1);
    } else if (pair.weight.kind == WeightKind::kEmbed) {
      for (const std::int32_t id : batch.ids) expect_element(pair.offset_b + id * pair.in + 1);
    }
    expect_element(pair.offset_b);
    expect_element(pair.offset_b + pair.size_b() - 1);
  }
}

class AdapterGradient : public testing::TestWithParam<GradientCase> {};

TEST_P(AdapterGradient, IsTheGradientOfTheLoss) {
  const GradientCase& param = GetParam();
  const auto ops = make_reference_ops(kF64Precision);
  const TinyModel model(param.family, *ops);
  AdapterOptions options;
  options.rank = 3;
  options.alpha = 4;
  options.targets = param.targets;
  options.layers = param.layers;
  options.dropout = param.dropout;
  options.full = param.full;
  Memory memory;
  AdapterSet adapters(model.config(), options, model.files(), DType::kF64, memory);
  expect_gradients_of_the_loss(model, *ops, adapters, param.recompute);
}

TEST(AdapterGradients, OfPairsWithRanksAndScalesOfTheirOwn) {
  const auto ops = make_reference_ops(kF64Precision);
  const TinyModel model("llama-bias", *ops);
  AdapterFile file;
  for (const auto& [layer, site, rank] :
       {std::tuple{0, Site::kK, 5}, {0, Site::kV, 1}, {1, Site::kUp, 2}, {2, Site::kO, 7}}) {
    AdapterPair pair;
    pair.layer = layer;
    pair.site = site;
    pair.r = rank;
    pair.alpha = 3;
    pair.scale = 3.0 / rank;
    const WeightShape shape = shape_of(model.config(), weight_of(layer, site));
    pair.a.resize(static_cast<std::size_t>(rank * shape.cols));
    pair.b.resize(static_cast<std::size_t>(rank * shape.rows));
    file.pairs.push_back(pair);
  }
  Memory memory;
  AdapterSet adapters(model.config(), file, DType::kF64, memory);
  ASSERT_EQ(adapters.pairs().size(), 4U);
  expect_gradients_of_the_loss(model, *ops, adapters);
}

INSTANTIATE_TEST_SUITE_P(Models, AdapterGradient,
                         testing::Values(GradientCase{"llama", kAll, {}}, GradientCase{"llama-bias", kAll, {}},
                                         GradientCase{"mistral", kAll, {}}, GradientCase{"qwen2", kAll, {}},
                                         GradientCase{"qwen3", kAll, {}}, GradientCase{"qwen3", kAll, {}, 0.4},
                                         GradientCase{"llama", {Site::kQ, Site::kV}, {{1}}},
                                         GradientCase{"llama-bias", {Site::kK, Site::kDown}, {{0, 2}}, 0.2}));

INSTANTIATE_TEST_SUITE_P(
    FullWeights, AdapterGradient,
    testing::Values(GradientCase{"llama", kAll, {}, 0, kAround}, GradientCase{"llama-bias", {}, {}, 0, kMatrices},
                    GradientCase{"llama-bias", {Site::kQ}, {}, 0, {WeightKind::kV, WeightKind::kLmHead}},
                    GradientCase{"llama-bias", {}, {}, 0, {WeightKind::kEmbed, WeightKind::kLmHead}},
                    GradientCase{"qwen3", {}, {{1}}, 0, {WeightKind::kKNorm, WeightKind::kQNorm}},
                    GradientCase{
                        "qwen3", {Site::kDown}, {}, 0, {WeightKind::kQNorm, WeightKind::kK, WeightKind::kGate}},
                    GradientCase{"llama", {}, {}, 0, {WeightKind::kFinalNorm}},
                    GradientCase{"llama-bias", {}, {}, 0, {WeightKind::kLmHead}},
                    GradientCase{"llama", {}, {{1}}, 0, {WeightKind::kMlpNorm}},
                    GradientCase{"llama", {}, {{2}}, 0, {WeightKind::kAttnNorm}},
                    GradientCase{"llama", {}, {{2}}, 0, {WeightKind::kO}},
                    GradientCase{"llama", {Site::kV}, {}, 0, kAround, Recompute::kNone},
                    GradientCase{"llama", {Site::kV}, {}, 0, kAround, Recompute::kBlock},
                    GradientCase{"llama", {}, {}, 0, kMatrices, Recompute::kMlp}));

/// Which gradients are computed depends on the lowest adapter; their values must not.
class LowestAdapter : public testing::TestWithParam<std::pair<std::int64_t, Site>> {};

TEST_P(LowestAdapter, HasTheGradientItHasAmongAllOthers) {
  const auto [layer, site] = GetParam();
  const auto ops = make_reference_ops(kF64Precision);
  const TinyModel model("qwen3", *ops);
  const RandomBatch batch({6, 9});
  AdapterOptions options;
  options.rank = 2;
  const auto gradient = [&](const AdapterOptions& chosen) {
    Memory memory;
    AdapterSet adapters(model.config(), chosen, model.files(), DType::kF64, memory);
    const AdaptedModel adapted(model.weights(), &adapters, *ops, memory);
    Decoder decoder(adapted, *ops, memory, {16, 16, 16, true});
    decoder.forward_backward(batch.view(), 1);
    const PairInfo pair = adapters.pairs()[*adapters.find(weight_of(layer, site))];
    const auto all = gradients_of(adapters);
    return std::vector<double>(all.begin() + pair.offset_a, all.begin() + pair.offset_b + pair.size_b());
  };
  const auto among_all = gradient(options);
  options.targets = {site};
  options.layers = {{layer}};
  EXPECT_EQ(gradient(options), among_all);  // lora_B is zero, so the others change nothing
}

INSTANTIATE_TEST_SUITE_P(Sites, LowestAdapter,
                         testing::Values(std::pair{0, Site::kQ}, std::pair{0, Site::kO}, std::pair{1, Site::kV},
                                         std::pair{1, Site::kUp}, std::pair{2, Site::kDown}, std::pair{2, Site::kK}));

}  // namespace
}  // namespace lomu::test

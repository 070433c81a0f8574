#include <gtest/gtest.h>

#include "kernels/error.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

class Weights : public testing::TestWithParam<std::string> {
 protected:
  Weights() {
    write_tiny_model(folder_.path(), GetParam());
    files_.emplace(ModelFiles::open(folder_.path()));
  }
  [[nodiscard]] const ModelConfig& config() const { return files_->config(); }
  std::vector<float> stored(WeightId id) const {
    std::vector<float> values(static_cast<std::size_t>(shape_of(config(), id).size()));
    files_->read(id, values);
    return values;
  }

  TemporaryFolder folder_;
  std::optional<ModelFiles> files_;
  Memory memory_;
};

TEST_P(Weights, AreWhereBindSaysTheyAre) {
  const auto ops = make_reference_ops(kF32Precision);  // it stores plain rows
  const WeightsLayout layout(config(), *ops, true);
  const Buffer region = memory_.allocate(Scope::kWeights, layout.bytes(), "weights");
  layout.fill({region.data(), region.size()}, *files_, *ops, 1, memory_);
  const ModelWeights w = layout.bind(region.data());
  const auto expect = [&](WeightId id, const void* values) {
    const auto expected = stored(id);
    const auto* got = static_cast<const float*>(values);
    ASSERT_NE(got, nullptr) << hf_name(id);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), got)) << hf_name(id);
  };
  expect({WeightKind::kEmbed, 0}, w.embedding.data);
  expect({WeightKind::kFinalNorm, 0}, w.final_norm);
  expect({WeightKind::kLmHead, 0}, w.head.storage);
  for (std::int64_t i = 0; i < config().num_layers; ++i) {
    const LayerWeights& layer = w.layers[static_cast<std::size_t>(i)];
    expect({WeightKind::kAttnNorm, i}, layer.attn_norm);
    expect({WeightKind::kMlpNorm, i}, layer.mlp_norm);
    for (const Site site : kAllSites) {
      const auto [group, part] = place_of(site);
      const AdaptedLinear& linear = layer.*group;
      std::int64_t first = 0;
      for (std::size_t p = 0; p < part; ++p) first += linear.frozen.outs[p];
      expect(weight_of(i, site), linear.frozen.storage + static_cast<std::size_t>(first * linear.frozen.in) * 4);
      if (has_bias(config(), site)) expect(bias_of(i, site), linear.bias[part]);
      EXPECT_EQ(has_bias(config(), site), linear.bias[part] != nullptr);
    }
    EXPECT_EQ(layer.q_norm != nullptr, config().qk_norm);
    if (config().qk_norm) expect({WeightKind::kQNorm, i}, layer.q_norm);
    if (config().qk_norm) expect({WeightKind::kKNorm, i}, layer.k_norm);
  }
}

TEST_P(Weights, AreTheSameBytesFromAnyNumberOfThreads) {
  for (const Precision precision : {kBF16Precision, kF32Precision, kF64Precision}) {
    const auto ops = make_reference_ops(precision);
    const WeightsLayout layout(config(), *ops, true);
    std::vector<std::vector<std::byte>> regions;
    for (const int threads : {1, 2, 5}) {
      regions.emplace_back(layout.bytes());
      layout.fill(regions.back(), *files_, *ops, threads, memory_);
    }
    EXPECT_EQ(regions[0], regions[1]);
    EXPECT_EQ(regions[0], regions[2]);
  }
}

TEST_P(Weights, RefuseARegionThatIsTooSmall) {
  const auto ops = make_reference_ops(kF32Precision);
  const WeightsLayout layout(config(), *ops, true);
  std::vector<std::byte> region(layout.bytes() - 1);
  EXPECT_THROW(layout.fill(region, *files_, *ops, 1, memory_), Error);
}

INSTANTIATE_TEST_SUITE_P(Families, Weights, testing::Values("llama", "llama-bias", "qwen2", "qwen3"));

}  // namespace
}  // namespace lomu::test

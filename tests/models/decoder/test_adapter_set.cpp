#include <gtest/gtest.h>

#include <cmath>

#include "kernels/error.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

class AdapterSetTest : public testing::Test {
 protected:
  AdapterSetTest() : ops_(make_reference_ops(kF32Precision)), model_("llama", *ops_) { options_.rank = 4; }
  AdapterSet make() { return {model_.config(), options_, model_.files(), DType::kF32, memory_}; }

  std::unique_ptr<Ops> ops_;
  TinyModel model_;
  Memory memory_;
  AdapterOptions options_;
};

TEST_F(AdapterSetTest, LiesInBackwardOrderWithoutGaps) {
  const AdapterSet adapters = make();
  const auto pairs = adapters.pairs();
  ASSERT_EQ(pairs.size(), 21U);
  const std::vector<Site> order = {Site::kDown, Site::kUp, Site::kGate, Site::kO, Site::kV, Site::kK, Site::kQ};
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_EQ(pairs[i].layer, 2 - static_cast<std::int64_t>(i / 7));
    EXPECT_EQ(pairs[i].site, order[i % 7]);
    EXPECT_EQ(pairs[i].offset_a, offset);
    EXPECT_EQ(pairs[i].offset_b, offset + pairs[i].rank * pairs[i].in);
    offset = pairs[i].offset_b + pairs[i].out * pairs[i].rank;
  }
  EXPECT_EQ(static_cast<std::int64_t>(adapters.factors().size()), offset);
  EXPECT_EQ(adapters.gradients().cols, offset);
  EXPECT_EQ(pairs[0].name, "model.layers.2.mlp.down_proj");
  EXPECT_EQ(pairs[0].in, 36);
  EXPECT_EQ(pairs[0].out, 24);
  EXPECT_EQ(pairs[0].scale, 32.0 / 4);
}

TEST_F(AdapterSetTest, ZeroStartIsUniformInLoraAAndZeroInLoraB) {
  const AdapterSet adapters = make();
  double sum = 0;
  double squares = 0;
  std::size_t count = 0;
  for (const PairInfo& pair : adapters.pairs()) {
    const double bound = 1 / std::sqrt(static_cast<double>(pair.in));
    for (const float x : adapters.a(pair)) {
      ASSERT_LE(std::abs(x), bound);
      sum += x / bound;
      squares += x / bound * x / bound;
      ++count;
    }
    for (const float x : adapters.b(pair)) ASSERT_EQ(x, 0);
  }
  const auto n = static_cast<double>(count);  // mean 0 and variance 1/3, within five standard deviations
  EXPECT_NEAR(sum / n, 0, 5 * std::sqrt(1.0 / 3 / n));
  EXPECT_NEAR(squares / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
}

TEST_F(AdapterSetTest, APairsStartDependsOnSeedAndNameAlone) {
  for (const AdapterInit init : {AdapterInit::kZero, AdapterInit::kBalanced}) {
    options_ = {};
    options_.rank = 4;
    options_.init = init;
    const AdapterSet all = make();
    options_.targets = {Site::kO};
    options_.layers = {{1}};
    const AdapterSet one = make();
    options_.seed = 1;
    const AdapterSet other = make();
    const auto from_all = all.a(all.pairs()[*all.find(weight_of(1, Site::kO))]);
    ASSERT_EQ(one.pairs().size(), 1U);
    const auto alone = one.a(one.pairs()[0]);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), from_all.begin(), from_all.end()));
    const auto another_seed = other.a(other.pairs()[0]);
    EXPECT_FALSE(std::equal(alone.begin(), alone.end(), another_seed.begin()));
    const auto other_layer = all.a(all.pairs()[*all.find(weight_of(2, Site::kO))]);
    EXPECT_FALSE(std::equal(alone.begin(), alone.end(), other_layer.begin()));
  }
}

/// x^T y of two columns of a row-major matrix with `cols` columns.
double column_product(std::span<const float> m, std::int64_t cols, std::int64_t i, std::int64_t j) {
  double sum = 0;
  for (std::size_t k = 0; k < m.size(); k += static_cast<std::size_t>(cols)) {
    sum += static_cast<double>(m[k + static_cast<std::size_t>(i)]) * m[k + static_cast<std::size_t>(j)];
  }
  return sum;
}

TEST_F(AdapterSetTest, BalancedStartIsOrthonormalTimesOneSmallNumber) {
  options_.init = AdapterInit::kBalanced;
  const AdapterSet adapters = make();
  for (const PairInfo& pair : adapters.pairs()) {
    const auto b = adapters.b(pair);
    const double tau = pair.scale * column_product(b, pair.rank, 0, 0);  // singular value of s B A
    // The weights are uniform in +-0.4: rms 0.23.
    const double edge = std::sqrt(static_cast<double>(pair.in)) + std::sqrt(static_cast<double>(pair.out));
    EXPECT_NEAR(tau, 0.4 / std::sqrt(3.0) * edge / 32, 0.1 * tau);
    for (std::int64_t i = 0; i < pair.rank; ++i) {
      for (std::int64_t j = 0; j < pair.rank; ++j) {
        EXPECT_NEAR(pair.scale * column_product(b, pair.rank, i, j), i == j ? tau : 0, 1e-6 * tau);
        const auto row_i =
            adapters.a(pair).subspan(static_cast<std::size_t>(i * pair.in), static_cast<std::size_t>(pair.in));
        const auto row_j =
            adapters.a(pair).subspan(static_cast<std::size_t>(j * pair.in), static_cast<std::size_t>(pair.in));
        double product = 0;
        for (std::size_t k = 0; k < row_i.size(); ++k) product += static_cast<double>(row_i[k]) * row_j[k];
        EXPECT_NEAR(pair.scale * product, i == j ? tau : 0, 1e-6 * tau);
      }
    }
  }
}

TEST_F(AdapterSetTest, RanksAboveTheMatrixAreAllowed) {
  options_.rank = 64;
  for (const AdapterInit init : {AdapterInit::kZero, AdapterInit::kBalanced}) {
    options_.init = init;
    const AdapterSet adapters = make();
    for (const float x : adapters.factors()) ASSERT_TRUE(std::isfinite(x));
  }
}

TEST_F(AdapterSetTest, SurvivesTheWayThroughAFile) {
  options_.targets = {Site::kQ, Site::kDown};
  options_.rslora = true;
  options_.dropout = 0.25;
  AdapterSet adapters = make();
  randomize(adapters);
  AdapterFile file = adapters.to_file("some/base");
  EXPECT_EQ(file.base_model, "some/base");
  EXPECT_TRUE(file.use_rslora);
  ASSERT_EQ(file.pairs.size(), 6U);
  EXPECT_EQ(file.pairs[0].layer, 0);
  EXPECT_EQ(file.pairs[0].site, Site::kQ);
  const TemporaryFolder folder;
  write_peft_adapter(folder.path() / "adapter", file, model_.config());
  const AdapterSet back(model_.config(), read_peft_adapter(folder.path() / "adapter", model_.config()), std::nullopt,
                        memory_);
  EXPECT_TRUE(
      std::equal(back.factors().begin(), back.factors().end(), adapters.factors().begin(), adapters.factors().end()));
  EXPECT_EQ(back.dropout(), 0.25);
  EXPECT_TRUE(back.gradients().empty());
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(back.pairs()[i].name, adapters.pairs()[i].name);
    EXPECT_DOUBLE_EQ(back.pairs()[i].scale, 32 / std::sqrt(4.0));
  }
}

TEST_F(AdapterSetTest, RefusesImpossibleOptions) {
  const auto refused = [&](auto change) {
    AdapterOptions options;
    change(options);
    EXPECT_THROW(plan_pairs(model_.config(), options), UsageError);
  };
  refused([](AdapterOptions& o) { o.rank = 0; });
  refused([](AdapterOptions& o) { o.rank = 257; });
  refused([](AdapterOptions& o) { o.alpha = 0; });
  refused([](AdapterOptions& o) { o.alpha = NAN; });
  refused([](AdapterOptions& o) { o.dropout = 1; });
  refused([](AdapterOptions& o) { o.targets.clear(); });
  refused([](AdapterOptions& o) { o.layers = {{3}}; });
  refused([](AdapterOptions& o) { o.layers = {{-1}}; });
  refused([](AdapterOptions& o) { o.layers = std::vector<std::int64_t>{}; });
}

}  // namespace
}  // namespace lomu::test

// Room for the factors of adapters beside weights, inputs and gradients, in the decoder: where it is left, and that
// passes with and without backward, which put their low-rank activations in different places, compute the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "models/decoder/generation.h"
#include "tests/models/decoder/computers.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

AdapterOptions rank_three(std::vector<Site> targets = {kAllSites.begin(), kAllSites.end()}) {
  AdapterOptions options;
  options.rank = 3;
  options.targets = std::move(targets);
  return options;
}

/// Columns to spare of the entry whose label ends so.
std::int64_t spare_of(const BufferPlan& plan, std::string_view end) {
  for (const BufferPlan::Entry& e : plan.entries()) {
    if (e.label.ends_with(end)) return e.spare;
  }
  ADD_FAILURE() << "no entry " << end;
  return -1;
}

TEST(SpareColumns, AreLeftWhereAdaptersWillBeAndNowhereElse) {
  const Computer c = make_computer({"cuda", kBF16Precision});
  const TinyModel base("qwen2", *c.ops);
  const TinyModel adapted("qwen2", *c.ops, true, rank_three({Site::kV, Site::kDown}));
  for (const LayerWeights& layer : base.weights().layers) {
    for (const auto group : {&LayerWeights::qkv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down}) {
      EXPECT_EQ((layer.*group).frozen.spare, 0);
    }
  }
  for (const LayerWeights& layer : adapted.weights().layers) {
    EXPECT_EQ(layer.qkv.frozen.spare, 64);
    EXPECT_EQ(layer.o.frozen.spare, 0);
    EXPECT_EQ(layer.gate_up.frozen.spare, 0);
    EXPECT_EQ(layer.down.frozen.spare, 64);
  }
  EXPECT_EQ(adapted.weights().head.spare, 0);

  const DecoderCapacity capacity{64, 64, 64, true, Recompute::kNone};
  const auto pairs = plan_pairs(base.config(), rank_three({Site::kV, Site::kDown}));
  const BufferPlan plan = Decoder::plan(base.config(), pairs, 0, *c.ops, capacity).buffers;
  EXPECT_EQ(spare_of(plan, "block 1, normed input"), 64);
  EXPECT_EQ(spare_of(plan, "block 1, attention"), 0);
  EXPECT_EQ(spare_of(plan, "block 1, gate|up"), 0);
  EXPECT_EQ(spare_of(plan, "block 1, mlp hidden"), 64);
  EXPECT_EQ(spare_of(plan, "gradient of q|k|v"), 64);
  const BufferPlan bare = Decoder::plan(base.config(), {}, 0, *c.ops, capacity).buffers;
  for (const BufferPlan::Entry& e : bare.entries()) EXPECT_EQ(e.spare, 0) << e.label;

  const TinyModel on_host("qwen2", *make_reference_ops(kF32Precision), true, rank_three());
  for (const LayerWeights& layer : on_host.weights().layers) EXPECT_EQ(layer.qkv.frozen.spare, 0);
}

class SparePasses : public testing::TestWithParam<std::tuple<Place, std::string>> {};

TEST_P(SparePasses, WithoutBackwardComputeWhatTrainingComputes) {
  const auto& [place, family] = GetParam();
  const Computer c = make_computer(place);
  const TinyModel model(family, *c.ops, true, rank_three());
  Memory host;
  AdapterSet adapters(model.config(), rank_three(), model.files(), DType::kF32, host);
  randomize(adapters);
  const AdaptedModel adapted(model.weights(), &adapters, *c.ops, *c.memory);
  Decoder training(adapted, *c.ops, *c.memory, {16, 16, 16, true});
  Decoder forward_only(adapted, *c.ops, *c.memory, {16, 16, 16, false});
  const RandomBatch batch({9, 1, 5});
  const double loss = training.forward(batch.view());
  EXPECT_EQ(forward_only.forward(batch.view()), loss);

  const RandomBatch text({7});
  std::vector<float> wanted(41);
  const std::vector<std::int32_t> last = {6};
  forward_only.logits(text.view(), last, {wanted.data(), DType::kF32, 1, 41});
  GenerationSession session(adapted, *c.ops, *c.memory, {1, 16, 4});
  const std::vector<SequenceInput> input = {{0, text.ids}};
  const Tensor logits = session.append(input);
  const std::vector<double> got(logits.row<float>(0), logits.row<float>(0) + 41);
  const double tolerance = place.precision == kBF16Precision ? 2e-2 : 1e-5;  // attention sums in another order
  EXPECT_LE(relative_error(got, std::vector<double>(wanted.begin(), wanted.end())), tolerance);
}

INSTANTIATE_TEST_SUITE_P(Emulated, SparePasses,
                         testing::Combine(testing::Values(Place{"cuda", kF32Precision}, Place{"cuda", kBF16Precision}),
                                          testing::Values("llama-bias", "qwen2", "qwen3")),
                         [](const auto& test) {
                           std::string name = std::get<0>(test.param).text() + "_" + std::get<1>(test.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace lomu::test

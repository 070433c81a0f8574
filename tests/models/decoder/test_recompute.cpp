// The ladder of recomputation: each level keeps less than the one before and gives the same bits, on every backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/models/decoder/computers.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

/// Which adapters a model has.
struct Adapters {
  std::vector<Site> targets{kAllSites.begin(), kAllSites.end()};
  std::vector<std::int64_t> layers{};  ///< empty: all
  double dropout = 0;
};

const std::vector<Adapters>& adapter_cases() {
  static const std::vector<Adapters> cases = {
      {.dropout = 0.3},
      {.targets = {Site::kK, Site::kDown}, .layers = {1}},  // a frozen block below, one without adapters above
      {.targets = {Site::kUp, Site::kO}, .layers = {0, 2}, .dropout = 0.2},
      {.targets = {Site::kDown}},
  };
  return cases;
}

/// What two micro-batches and an evaluation between them come to.
std::vector<double> run(Computer& c, const TinyModel& model, const Adapters& chosen, Recompute level) {
  AdapterOptions options;
  options.rank = 3;
  options.targets = chosen.targets;
  if (!chosen.layers.empty()) options.layers = chosen.layers;
  options.dropout = chosen.dropout;
  Memory host;
  AdapterSet adapters(model.config(), options, model.files(), c.ops->precision().gradient, host);
  randomize(adapters);
  const AdaptedModel adapted(model.weights(), &adapters, *c.ops, *c.memory);
  Decoder decoder(adapted, *c.ops, *c.memory, {24, 24, 12, true, level});
  std::vector<double> results;
  const auto train = [&](const RandomBatch& batch, std::uint64_t key) {
    results.push_back(decoder.forward_backward(batch.view(), 0.25, key));
    adapted.fetch_gradients();
    const std::vector<double> gradient = gradients_of(adapters);
    results.insert(results.end(), gradient.begin(), gradient.end());
  };
  train(RandomBatch({9, 1, 5}, 1), 7);
  results.push_back(decoder.forward(RandomBatch({12, 8}, 2).view()));
  train(RandomBatch({3, 11}, 3), 8);
  return results;
}

class Ladder : public testing::TestWithParam<std::tuple<Place, std::string>> {};

TEST_P(Ladder, GivesTheSameBitsAtEveryLevel) {
  const auto& [place, family] = GetParam();
  if (!place.works_here()) GTEST_SKIP() << "this CPU has no bf16 products";
  Computer computer = make_computer(place);
  AdapterOptions all_sites;
  all_sites.rank = 3;
  const TinyModel model(family, *computer.ops, true, all_sites);
  const std::size_t cases = place.backend == "cuda" ? 2 : adapter_cases().size();  // emulation is slow
  for (std::size_t i = 0; i < cases; ++i) {
    const auto kept = run(computer, model, adapter_cases()[i], Recompute::kNone);
    EXPECT_GT(std::set<double>(kept.begin(), kept.end()).size(), 40U) << "the gradients say nothing";
    for (const Recompute level : {Recompute::kNorms, Recompute::kMlp, Recompute::kBlock}) {
      EXPECT_EQ(run(computer, model, adapter_cases()[i], level), kept) << "adapters " << i << ", " << name_of(level);
    }
  }
}

std::string test_name(const testing::TestParamInfo<std::tuple<Place, std::string>>& info) {
  const auto& [place, family] = info.param;
  std::string name = place.text() + "_" + family;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

const auto kFamilies = testing::Values("llama", "llama-bias", "mistral", "qwen2", "qwen3");
INSTANTIATE_TEST_SUITE_P(OnTheHost, Ladder,
                         testing::Combine(testing::Values(Place{"reference", kF64Precision},
                                                          Place{"cpu", kF32Precision}, Place{"cpu", kBF16Precision}),
                                          kFamilies),
                         test_name);
INSTANTIATE_TEST_SUITE_P(Emulated, Ladder, testing::Combine(testing::Values(Place{"cuda", kBF16Precision}), kFamilies),
                         test_name);
INSTANTIATE_TEST_SUITE_P(EmulatedF32, Ladder,
                         testing::Combine(testing::Values(Place{"cuda", kF32Precision}), testing::Values("qwen3")),
                         test_name);

/// Labels of what the plan keeps for one block.
std::set<std::string> kept_of_block(const BufferPlan& plan, std::int64_t layer) {
  const std::string name = "block " + std::to_string(layer) + ", ";
  std::set<std::string> kept;
  for (const BufferPlan::Entry& e : plan.entries()) {
    if (e.label.starts_with(name) && e.cols > 0) kept.insert(e.label.substr(name.size()));
  }
  return kept;
}

TEST(LadderPlan, EachLevelKeepsLessThanTheOneBefore) {
  const auto ops = make_reference_ops(kBF16Precision);
  const TinyModel model("qwen3", *ops);
  const auto pairs = plan_pairs(model.config(), AdapterOptions{});
  std::vector<std::set<std::string>> kept;
  std::vector<std::size_t> bytes;
  for (const Recompute level : kRecomputeLadder) {
    const BufferPlan plan = Decoder::plan(model.config(), pairs, 0, *ops, {64, 64, 64, true, level}).buffers;
    kept.push_back(kept_of_block(plan, 1));
    bytes.push_back(plan.bytes(Scope::kActivations));
  }
  EXPECT_EQ(kept.back(), (std::set<std::string>{"stream", "low rank down"}));
  for (std::size_t i = 1; i < kept.size(); ++i) {
    EXPECT_LT(kept[i].size(), kept[i - 1].size());
    EXPECT_LT(bytes[i], bytes[i - 1]);
    EXPECT_TRUE(std::includes(kept[i - 1].begin(), kept[i - 1].end(), kept[i].begin(), kept[i].end()));
  }
  EXPECT_EQ(kept[0].count("mlp hidden"), 1U);
  EXPECT_EQ(kept[1].count("gate|up"), 1U);
  EXPECT_EQ(kept[2].count("q|k|v"), 1U);
}

TEST(LadderPlan, KeepsNoInputThatNoAdapterReads) {
  const auto ops = make_reference_ops(kBF16Precision);
  const TinyModel model("llama", *ops);
  AdapterOptions options;
  options.targets = {Site::kV};
  const auto pairs = plan_pairs(model.config(), options);
  const BufferPlan plan = Decoder::plan(model.config(), pairs, 0, *ops, {64, 64, 64, true, Recompute::kNone}).buffers;
  const auto kept = kept_of_block(plan, 1);
  EXPECT_EQ(kept.count("normed input"), 1U);
  EXPECT_EQ(kept.count("mlp hidden"), 0U);
}

TEST(LadderObserver, SeesWhatIsComputedAgainOnce) {
  Computer c = make_computer({"reference", kF32Precision});
  const TinyModel model("llama", *c.ops);
  AdapterSet adapters(model.config(), AdapterOptions{}, model.files(), DType::kF32, *c.memory);
  const AdaptedModel adapted(model.weights(), &adapters, *c.ops, *c.memory);
  Decoder decoder(adapted, *c.ops, *c.memory, {24, 24, 12, true, Recompute::kBlock});
  int seen = 0;
  decoder.observe([&](std::int64_t, Stage stage, const Tensor&) { seen += stage == Stage::kGateUp ? 1 : 0; });
  decoder.forward_backward(RandomBatch({9, 5}).view(), 1);
  EXPECT_EQ(seen, model.config().num_layers);
}

}  // namespace
}  // namespace lomu::test

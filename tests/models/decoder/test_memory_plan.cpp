// What a decoder takes is known before it is made, and nothing is allocated once it is: on every backend.
#include <gtest/gtest.h>

#include "tests/models/decoder/computers.h"
#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

class MemoryPlan : public testing::TestWithParam<std::tuple<Place, double, Recompute>> {};

TEST_P(MemoryPlan, IsWhatIsTakenBeforeTheFirstStepAndEverAfter) {
  const auto& [place, dropout, level] = GetParam();
  if (!place.works_here()) GTEST_SKIP() << "this CPU has no bf16 products";
  const Computer c = make_computer(place);
  AdapterOptions options;
  options.rank = 20;
  options.dropout = dropout;
  const TinyModel model("qwen3", *c.ops, true, options);
  Memory host;
  AdapterSet adapters(model.config(), options, model.files(), c.ops->precision().gradient, host);
  const AdaptedModel adapted(model.weights(), &adapters, *c.ops, *c.memory);

  const DecoderCapacity capacity{80, 80, 66, true, level};
  const DecoderPlan plan = Decoder::plan(model.config(), adapters.pairs(), dropout, *c.ops, capacity);
  const auto taken = [&](Scope scope) { return c.memory->current(scope); };
  const std::size_t activations = taken(Scope::kActivations);
  const std::size_t workspace = taken(Scope::kWorkspace);
  Decoder decoder(adapted, *c.ops, *c.memory, capacity);
  EXPECT_EQ(taken(Scope::kActivations) - activations, plan.bytes(Scope::kActivations));
  const std::size_t all = c.memory->current_total();
  EXPECT_EQ(taken(Scope::kWorkspace) - workspace, plan.bytes(Scope::kWorkspace));

  for (const auto& lengths : std::vector<std::vector<std::int64_t>>{{3}, {66, 14}, {2, 7, 9}}) {
    decoder.forward(RandomBatch(lengths).view());
    decoder.forward_backward(RandomBatch(lengths).view(), 1, 5);
    ASSERT_EQ(c.memory->current_total(), all) << "a step has allocated";
  }
  for (const Scope scope : {Scope::kActivations, Scope::kWorkspace}) EXPECT_EQ(c.memory->peak(scope), taken(scope));
}

INSTANTIATE_TEST_SUITE_P(Backends, MemoryPlan,
                         testing::Combine(testing::Values(Place{"cpu", kF32Precision}, Place{"cpu", kBF16Precision},
                                                          Place{"cuda", kF32Precision}, Place{"cuda", kBF16Precision}),
                                          testing::Values(0.0, 0.2),
                                          testing::Values(Recompute::kNone, Recompute::kBlock)),
                         [](const auto& test) {
                           return std::get<0>(test.param).text() + (std::get<1>(test.param) > 0 ? "_dropout_" : "_") +
                                  std::string(name_of(std::get<2>(test.param)));
                         });

}  // namespace
}  // namespace lomu::test

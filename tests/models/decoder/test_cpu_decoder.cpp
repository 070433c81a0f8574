// The whole model on the production operations: close to the specification, the same bits from any number of threads,
// and a document's losses the same bits whatever is packed beside it.
#include <gtest/gtest.h>

#include "tests/models/decoder/tiny_model.h"

namespace lomu::test {
namespace {

/// Losses of all tokens and the gradient of one step.
struct StepResult {
  std::vector<double> losses;
  std::vector<double> gradient;
};

StepResult run(const std::string& family, const Ops& ops, const RandomBatch& batch, double dropout) {
  const TinyModel model(family, ops);
  Memory memory;
  AdapterOptions options;
  options.rank = 5;
  options.alpha = 5;
  options.dropout = dropout;
  AdapterSet adapters(model.config(), options, model.files(), ops.precision().gradient, memory);
  randomize(adapters, 0.15);  // small enough that bf16 rounding is not amplified from layer to layer
  const AdaptedModel adapted(model.weights(), &adapters, ops, memory);
  Decoder decoder(adapted, ops, memory, {128, 128, 64, true});
  StepResult result;
  result.losses.resize(batch.ids.size());
  decoder.forward(batch.view(), result.losses);
  decoder.forward_backward(batch.view(), 0.1, 12);
  result.gradient = gradients_of(adapters);
  return result;
}

class CpuDecoder : public testing::TestWithParam<std::tuple<Precision, std::string>> {
 protected:
  void SetUp() override {
    if (precision() == kBF16Precision && !cpu_has_fast_bf16()) GTEST_SKIP() << "this CPU has no bf16 products";
  }
  [[nodiscard]] static Precision precision() { return std::get<0>(GetParam()); }
  [[nodiscard]] static const std::string& family() { return std::get<1>(GetParam()); }
};

TEST_P(CpuDecoder, IsEquivalentToReference) {
  Memory memory;
  const RandomBatch batch({40, 1, 7, 60});
  const StepResult exact = run(family(), *make_reference_ops(kF64Precision), batch, 0.2);
  const StepResult got = run(family(), *make_cpu_ops(precision(), 2, memory), batch, 0.2);
  const bool bf16 = precision() == kBF16Precision;
  EXPECT_LE(relative_error(got.losses, exact.losses), bf16 ? 4e-2 : 2e-5);
  EXPECT_LE(relative_error(got.gradient, exact.gradient), bf16 ? 1.5e-1 : 5e-5);
}

TEST_P(CpuDecoder, HasTheSameBitsOnAnyNumberOfThreads) {
  Memory memory;
  const RandomBatch batch({40, 1, 7, 60});
  const StepResult one = run(family(), *make_cpu_ops(precision(), 1, memory), batch, 0.2);
  for (const int threads : {2, 3}) {
    const StepResult other = run(family(), *make_cpu_ops(precision(), threads, memory), batch, 0.2);
    EXPECT_EQ(one.losses, other.losses);
    EXPECT_EQ(one.gradient, other.gradient);
  }
}

TEST_P(CpuDecoder, ADocumentsLossesAreTheSameBitsInAnyPacking) {
  Memory memory;
  const auto ops = make_cpu_ops(precision(), 2, memory);
  const RandomBatch batch({40, 1, 7, 60});
  const auto packed = run(family(), *ops, batch, 0).losses;
  for (std::size_t d = 0; d < 4; ++d) {
    const auto alone = run(family(), *ops, batch.document(d), 0).losses;
    const auto first = packed.begin() + batch.cu_seqlens[d];
    EXPECT_EQ(alone, std::vector<double>(first, first + static_cast<std::ptrdiff_t>(alone.size()))) << "document " << d;
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, CpuDecoder,
                         testing::Combine(testing::Values(kF32Precision, kBF16Precision),
                                          testing::Values("llama", "mistral", "qwen3")));

}  // namespace
}  // namespace lomu::test

// Every golden model, its adapter, losses and gradients, by the specification in f64 and f32, and by the production
// operations.
#include <gtest/gtest.h>

#include "engine/verify/model_cases.h"

namespace lomu::test {
namespace {

struct Way {
  const char* name;
  Precision precision;
  bool cpu;
};

void PrintTo(const Way& way, std::ostream* os) {
  *os << way.name;
}

class GoldenModels : public testing::TestWithParam<std::tuple<Way, std::string>> {};

TEST_P(GoldenModels, AreMatchedWithinTheirTolerances) {
  const auto& [way, name] = GetParam();
  if (way.precision == kBF16Precision && way.cpu && !cpu_has_fast_bf16()) GTEST_SKIP() << "no bf16 products here";
  Memory memory;
  const auto ops = way.cpu ? make_cpu_ops(way.precision, 2, memory) : make_reference_ops(way.precision);
  const auto checks = verify_model_cases(std::string(LOMU_TEST_DATA) + "/models/" + name, {}, *ops, 2, memory);
  EXPECT_GT(checks.size(), 10U);
  for (const ModelCheck& check : checks) {
    EXPECT_TRUE(check.pass) << check.quantity << ": " << check.error << " > " << check.tolerance;
  }
}

const Way kWays[] = {
    {"reference_f64", kF64Precision, false},
    {"reference_f32", kF32Precision, false},
    {"cpu_f32", kF32Precision, true},
    {"cpu_bf16", kBF16Precision, true},
};

INSTANTIATE_TEST_SUITE_P(Cases, GoldenModels,
                         testing::Combine(testing::ValuesIn(kWays),
                                          testing::Values("llama-bias", "llama-tied", "llama3-rope-sharded",
                                                          "mistral-window", "qwen2", "qwen3")));

}  // namespace
}  // namespace lomu::test

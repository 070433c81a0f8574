#include "kernels/dequantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <optional>
#include <vector>

#include "models/files/ggml_types.h"
#include "models/files/safetensors.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

struct TypeCase {
  const char* name;
  Encoding encoding;
};

class Dequantize : public ::testing::TestWithParam<TypeCase> {};

// Blocks with random, all-zero and all-one bits under zero, subnormal, smallest, largest and negative scales; the
// values are those of gguf.quants.dequantize (gguf 0.19).
TEST_P(Dequantize, IsBitForBitWhatTheGgufPackageGives) {
  const SafetensorsFile file(test::data_path("files/dequantize.safetensors"));
  const auto blocks = file.raw(file.at(std::string(GetParam().name) + ".blocks"));
  const SafetensorInfo& info = file.at(std::string(GetParam().name) + ".values");
  std::vector<float> expected(static_cast<std::size_t>(info.elements));
  file.read_f32(info, 0, expected);
  std::vector<float> got(expected.size());
  dequantize(GetParam().encoding, blocks, got);
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(expected[i])) << "element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, Dequantize,
                         ::testing::Values(TypeCase{"F32", Encoding::kF32}, TypeCase{"F16", Encoding::kF16},
                                           TypeCase{"BF16", Encoding::kBF16}, TypeCase{"Q8_0", Encoding::kQ8_0},
                                           TypeCase{"Q4_0", Encoding::kQ4_0}, TypeCase{"Q4_1", Encoding::kQ4_1},
                                           TypeCase{"Q5_0", Encoding::kQ5_0}, TypeCase{"Q5_1", Encoding::kQ5_1},
                                           TypeCase{"Q4_K", Encoding::kQ4_K}, TypeCase{"Q6_K", Encoding::kQ6_K}),
                         [](const auto& test_case) { return test_case.param.name; });

TEST(DequantizeTypes, SizesThatDoNotFitAreRefused) {
  std::vector<std::byte> blocks(18);
  std::vector<float> out(31);
  EXPECT_THROW(dequantize(Encoding::kQ4_0, blocks, out), FormatError);
  out.resize(64);
  EXPECT_THROW(dequantize(Encoding::kQ4_0, blocks, out), FormatError);
}

TEST(DequantizeTypes, UnknownNumbersAreUnknown) {
  EXPECT_FALSE(ggml_type_info(4));  // Q4_2, removed from the format
  EXPECT_FALSE(ggml_type_info(1000));
  EXPECT_EQ(ggml_type_info(10)->encoding, std::nullopt);
  EXPECT_EQ(ggml_type_info(12)->name, "q4_K");
  EXPECT_EQ(ggml_type_info(12)->block_bytes, 144);
  EXPECT_EQ(ggml_type_info(12)->encoding, Encoding::kQ4_K);
}

}  // namespace
}  // namespace lomu

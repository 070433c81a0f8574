#include "models/files/ggml_types.h"

#include <algorithm>
#include <array>

namespace lomu {
namespace {

constexpr GgmlTypeInfo readable(std::uint32_t number, Encoding encoding) {
  const BlockSize block = block_of(encoding);
  return {number, name_of(encoding), block.elements, block.bytes, encoding};
}

// Number, name, elements and bytes a block. Source: ggml.h and GGML_QUANT_SIZES of the gguf package, 0.19.
constexpr std::array kTypes{
    readable(0, Encoding::kF32),
    readable(1, Encoding::kF16),
    readable(2, Encoding::kQ4_0),
    readable(3, Encoding::kQ4_1),
    readable(6, Encoding::kQ5_0),
    readable(7, Encoding::kQ5_1),
    readable(8, Encoding::kQ8_0),
    GgmlTypeInfo{9, "q8_1", 32, 40, {}},
    GgmlTypeInfo{10, "q2_K", 256, 84, {}},
    GgmlTypeInfo{11, "q3_K", 256, 110, {}},
    readable(12, Encoding::kQ4_K),
    GgmlTypeInfo{13, "q5_K", 256, 176, {}},
    readable(14, Encoding::kQ6_K),
    GgmlTypeInfo{15, "q8_K", 256, 292, {}},
    GgmlTypeInfo{16, "iq2_xxs", 256, 66, {}},
    GgmlTypeInfo{17, "iq2_xs", 256, 74, {}},
    GgmlTypeInfo{18, "iq3_xxs", 256, 98, {}},
    GgmlTypeInfo{19, "iq1_s", 256, 50, {}},
    GgmlTypeInfo{20, "iq4_nl", 32, 18, {}},
    GgmlTypeInfo{21, "iq3_s", 256, 110, {}},
    GgmlTypeInfo{22, "iq2_s", 256, 82, {}},
    GgmlTypeInfo{23, "iq4_xs", 256, 136, {}},
    GgmlTypeInfo{24, "i8", 1, 1, {}},
    GgmlTypeInfo{25, "i16", 1, 2, {}},
    GgmlTypeInfo{26, "i32", 1, 4, {}},
    GgmlTypeInfo{27, "i64", 1, 8, {}},
    GgmlTypeInfo{28, "f64", 1, 8, {}},
    GgmlTypeInfo{29, "iq1_m", 256, 56, {}},
    readable(30, Encoding::kBF16),
    GgmlTypeInfo{34, "tq1_0", 256, 54, {}},
    GgmlTypeInfo{35, "tq2_0", 256, 66, {}},
    GgmlTypeInfo{39, "mxfp4", 32, 17, {}},
    GgmlTypeInfo{40, "nvfp4", 64, 36, {}},
    GgmlTypeInfo{41, "q1_0", 128, 18, {}},
};

}  // namespace

std::optional<GgmlTypeInfo> ggml_type_info(std::uint32_t number) {
  const auto it = std::find_if(kTypes.begin(), kTypes.end(), [&](const GgmlTypeInfo& t) { return t.number == number; });
  if (it == kTypes.end()) return std::nullopt;
  return *it;
}

}  // namespace lomu

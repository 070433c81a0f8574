#include "models/files/dequantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/dtype.h"
#include "kernels/error.h"

namespace lomu {
namespace {

// Number, name, elements and bytes a block. Source: ggml.h and GGML_QUANT_SIZES of the gguf package, 0.19.
constexpr std::array kTypes{
    GgmlTypeInfo{0, "f32", 1, 4, true},          GgmlTypeInfo{1, "f16", 1, 2, true},
    GgmlTypeInfo{2, "q4_0", 32, 18, true},       GgmlTypeInfo{3, "q4_1", 32, 20, true},
    GgmlTypeInfo{6, "q5_0", 32, 22, true},       GgmlTypeInfo{7, "q5_1", 32, 24, true},
    GgmlTypeInfo{8, "q8_0", 32, 34, true},       GgmlTypeInfo{9, "q8_1", 32, 40, false},
    GgmlTypeInfo{10, "q2_K", 256, 84, false},    GgmlTypeInfo{11, "q3_K", 256, 110, false},
    GgmlTypeInfo{12, "q4_K", 256, 144, true},    GgmlTypeInfo{13, "q5_K", 256, 176, false},
    GgmlTypeInfo{14, "q6_K", 256, 210, true},    GgmlTypeInfo{15, "q8_K", 256, 292, false},
    GgmlTypeInfo{16, "iq2_xxs", 256, 66, false}, GgmlTypeInfo{17, "iq2_xs", 256, 74, false},
    GgmlTypeInfo{18, "iq3_xxs", 256, 98, false}, GgmlTypeInfo{19, "iq1_s", 256, 50, false},
    GgmlTypeInfo{20, "iq4_nl", 32, 18, false},   GgmlTypeInfo{21, "iq3_s", 256, 110, false},
    GgmlTypeInfo{22, "iq2_s", 256, 82, false},   GgmlTypeInfo{23, "iq4_xs", 256, 136, false},
    GgmlTypeInfo{24, "i8", 1, 1, false},         GgmlTypeInfo{25, "i16", 1, 2, false},
    GgmlTypeInfo{26, "i32", 1, 4, false},        GgmlTypeInfo{27, "i64", 1, 8, false},
    GgmlTypeInfo{28, "f64", 1, 8, false},        GgmlTypeInfo{29, "iq1_m", 256, 56, false},
    GgmlTypeInfo{30, "bf16", 1, 2, true},        GgmlTypeInfo{34, "tq1_0", 256, 54, false},
    GgmlTypeInfo{35, "tq2_0", 256, 66, false},   GgmlTypeInfo{39, "mxfp4", 32, 17, false},
    GgmlTypeInfo{40, "nvfp4", 64, 36, false},    GgmlTypeInfo{41, "q1_0", 128, 18, false},
};

float load_f16(const std::byte* p) {
  F16 value;
  std::memcpy(&value, p, sizeof(value));
  return static_cast<float>(value);
}

std::uint8_t load_u8(const std::byte* p) {
  return std::to_integer<std::uint8_t>(*p);
}

int low_nibble(const std::byte* p) {
  return load_u8(p) & 0x0f;
}
int high_nibble(const std::byte* p) {
  return load_u8(p) >> 4;
}

std::uint32_t load_u32(const std::byte* p) {
  std::uint32_t value = 0;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

template <typename Stored>
void dequantize_half(const std::byte* in, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    Stored value;
    std::memcpy(&value, in + i * sizeof(Stored), sizeof(Stored));
    out[i] = static_cast<float>(value);
  }
}

// Q8_0, 32 elements in 34 bytes: f16 d; 32 x i8 q.  x = d q
void dequantize_q8_0(const std::byte* block, float* out) {
  const float d = load_f16(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(std::to_integer<std::int8_t>(block[2 + i]));
}

// Q4_0, 32 elements in 18 bytes: f16 d; 16 bytes of nibbles, element i in the low half of byte i, element i + 16 in its
// high half.  x = d (q - 8)
void dequantize_q4_0(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const std::byte* nibbles = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(low_nibble(nibbles + i) - 8);
    out[i + 16] = d * static_cast<float>(high_nibble(nibbles + i) - 8);
  }
}

// Q4_1, 32 elements in 20 bytes: f16 d; f16 m; nibbles as in Q4_0.  x = d q + m
void dequantize_q4_1(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  const std::byte* nibbles = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(low_nibble(nibbles + i)) + m;
    out[i + 16] = d * static_cast<float>(high_nibble(nibbles + i)) + m;
  }
}

// Q5_0, 32 elements in 22 bytes: f16 d; u32 whose bit i is the fifth bit of element i; nibbles as in Q4_0.  x = d (q -
// 16)
void dequantize_q5_0(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const std::uint32_t fifth = load_u32(block + 2);
  const std::byte* nibbles = block + 6;
  for (int i = 0; i < 16; ++i) {
    const int low = low_nibble(nibbles + i) | static_cast<int>(fifth >> i & 1u) << 4;
    const int high = high_nibble(nibbles + i) | static_cast<int>(fifth >> (i + 16) & 1u) << 4;
    out[i] = d * static_cast<float>(low - 16);
    out[i + 16] = d * static_cast<float>(high - 16);
  }
}

// Q5_1, 32 elements in 24 bytes: f16 d; f16 m; u32 of fifth bits; nibbles as in Q4_0.  x = d q + m
void dequantize_q5_1(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  const std::uint32_t fifth = load_u32(block + 4);
  const std::byte* nibbles = block + 8;
  for (int i = 0; i < 16; ++i) {
    const int low = low_nibble(nibbles + i) | static_cast<int>(fifth >> i & 1u) << 4;
    const int high = high_nibble(nibbles + i) | static_cast<int>(fifth >> (i + 16) & 1u) << 4;
    out[i] = d * static_cast<float>(low) + m;
    out[i + 16] = d * static_cast<float>(high) + m;
  }
}

struct ScaleAndMin {
  int scale;
  int min;
};

// The 12 bytes of 6-bit numbers of a K-quant: scales 0-3 in bytes 0-3, mins 0-3 in bytes 4-7; scales and mins 4-7 have
// their low four bits in the halves of bytes 8-11 and their high two bits on top of bytes 0-3 and 4-7.
ScaleAndMin scale_and_min(const std::byte* packed, int j) {
  if (j < 4) return {load_u8(packed + j) & 63, load_u8(packed + j + 4) & 63};
  return {low_nibble(packed + j + 4) | (load_u8(packed + j - 4) >> 6) << 4,
          high_nibble(packed + j + 4) | (load_u8(packed + j) >> 6) << 4};
}

// Q4_K, 256 elements in 144 bytes: f16 d; f16 dmin; 12 bytes of eight scales and mins; 128 bytes of nibbles.
// Sub-block j holds elements 32 j .. 32 j + 31; sub-blocks 2 k and 2 k + 1 are the low and high halves of bytes
// 32 k .. 32 k + 31.
//
//     x = d scale_j q - dmin min_j
void dequantize_q4_k(const std::byte* block, float* out) {
  const float d = load_f16(block);
  const float dmin = load_f16(block + 2);
  for (std::size_t k = 0; k < 4; ++k) {
    const std::byte* nibbles = block + 16 + 32 * k;
    const ScaleAndMin low = scale_and_min(block + 4, 2 * static_cast<int>(k));
    const ScaleAndMin high = scale_and_min(block + 4, 2 * static_cast<int>(k) + 1);
    const float low_d = d * static_cast<float>(low.scale);
    const float low_m = dmin * static_cast<float>(low.min);
    const float high_d = d * static_cast<float>(high.scale);
    const float high_m = dmin * static_cast<float>(high.min);
    for (std::size_t i = 0; i < 32; ++i) {
      out[64 * k + i] = low_d * static_cast<float>(low_nibble(nibbles + i)) - low_m;
      out[64 * k + 32 + i] = high_d * static_cast<float>(high_nibble(nibbles + i)) - high_m;
    }
  }
}

// Q6_K, 256 elements in 210 bytes: 128 bytes ql of low four bits; 64 bytes qh of high two bits; 16 x i8 scales, one for
// 16 elements; f16 d. In each half of 128 elements, with l = 0..31: elements l and l + 64 are the low and high halves
// of ql[l], l + 32 and l + 96 those of ql[l + 32]; their high bits are bits 0-1, 4-5, 2-3 and 6-7 of qh[l].
//
//     x = d scale (q - 32)
void dequantize_q6_k(const std::byte* block, float* out) {
  const float d = load_f16(block + 208);
  for (std::size_t half = 0; half < 2; ++half) {
    const std::byte* ql = block + 64 * half;
    const std::byte* qh = block + 128 + 32 * half;
    std::array<float, 8> scale{};
    for (std::size_t i = 0; i < 8; ++i) {
      scale[i] = d * static_cast<float>(std::to_integer<std::int8_t>(block[192 + 8 * half + i]));
    }
    float* y = out + 128 * half;
    for (int l = 0; l < 32; ++l) {
      const int high = load_u8(qh + l);
      const auto group = static_cast<std::size_t>(l / 16);
      y[l] = scale[group] * static_cast<float>((low_nibble(ql + l) | (high & 3) << 4) - 32);
      y[l + 32] = scale[group + 2] * static_cast<float>((low_nibble(ql + l + 32) | (high >> 2 & 3) << 4) - 32);
      y[l + 64] = scale[group + 4] * static_cast<float>((high_nibble(ql + l) | (high >> 4 & 3) << 4) - 32);
      y[l + 96] = scale[group + 6] * static_cast<float>((high_nibble(ql + l + 32) | (high >> 6 & 3) << 4) - 32);
    }
  }
}

template <void (*kBlock)(const std::byte*, float*)>
void dequantize_blocks(const GgmlTypeInfo& info, std::span<const std::byte> in, std::span<float> out) {
  const auto elements = static_cast<std::size_t>(info.block_elements);
  const auto bytes = static_cast<std::size_t>(info.block_bytes);
  for (std::size_t b = 0; b < out.size() / elements; ++b) kBlock(in.data() + b * bytes, out.data() + b * elements);
}

}  // namespace

std::optional<GgmlTypeInfo> ggml_type_info(std::uint32_t number) {
  const auto it = std::find_if(kTypes.begin(), kTypes.end(), [&](const GgmlTypeInfo& t) { return t.number == number; });
  if (it == kTypes.end()) return std::nullopt;
  return *it;
}

void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
  const auto info = ggml_type_info(static_cast<std::uint32_t>(type));
  if (!info || !info->readable) {
    throw UnsupportedError(fmt::format("GGUF tensor type {}", static_cast<std::uint32_t>(type)));
  }
  const auto elements = static_cast<std::size_t>(info->block_elements);
  if (out.size() % elements != 0 ||
      blocks.size() != out.size() / elements * static_cast<std::size_t>(info->block_bytes)) {
    throw FormatError(fmt::format("{} bytes of {} are not {} elements", blocks.size(), info->name, out.size()));
  }
  if (out.empty()) return;
  switch (type) {
    case GgmlType::kF32: std::memcpy(out.data(), blocks.data(), blocks.size()); break;
    case GgmlType::kF16: dequantize_half<F16>(blocks.data(), out); break;
    case GgmlType::kBF16: dequantize_half<BF16>(blocks.data(), out); break;
    case GgmlType::kQ8_0: dequantize_blocks<dequantize_q8_0>(*info, blocks, out); break;
    case GgmlType::kQ4_0: dequantize_blocks<dequantize_q4_0>(*info, blocks, out); break;
    case GgmlType::kQ4_1: dequantize_blocks<dequantize_q4_1>(*info, blocks, out); break;
    case GgmlType::kQ5_0: dequantize_blocks<dequantize_q5_0>(*info, blocks, out); break;
    case GgmlType::kQ5_1: dequantize_blocks<dequantize_q5_1>(*info, blocks, out); break;
    case GgmlType::kQ4_K: dequantize_blocks<dequantize_q4_k>(*info, blocks, out); break;
    case GgmlType::kQ6_K: dequantize_blocks<dequantize_q6_k>(*info, blocks, out); break;
  }
}

}  // namespace lomu

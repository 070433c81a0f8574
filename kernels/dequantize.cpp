#include "kernels/dequantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "kernels/error.h"

namespace lomu {
namespace {

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
void dequantize_blocks(const BlockSize& block, const std::byte* from, std::span<float> out) {
  const auto elements = static_cast<std::size_t>(block.elements);
  for (std::size_t b = 0; b < out.size() / elements; ++b) {
    kBlock(from + b * static_cast<std::size_t>(block.bytes), out.data() + b * elements);
  }
}

}  // namespace

void dequantize(Encoding encoding, std::span<const std::byte> blocks, std::span<float> out) {
  const BlockSize block = block_of(encoding);
  const auto elements = static_cast<std::size_t>(block.elements);
  if (out.size() % elements != 0 || blocks.size() != out.size() / elements * static_cast<std::size_t>(block.bytes)) {
    throw FormatError(fmt::format("{} bytes of {} are not {} elements", blocks.size(), name_of(encoding), out.size()));
  }
  if (out.empty()) return;
  const std::byte* from = blocks.data();
  switch (encoding) {
    case Encoding::kF32: std::memcpy(out.data(), from, blocks.size()); break;
    case Encoding::kF16: dequantize_half<F16>(from, out); break;
    case Encoding::kBF16: dequantize_half<BF16>(from, out); break;
    case Encoding::kQ8_0: dequantize_blocks<dequantize_q8_0>(block, from, out); break;
    case Encoding::kQ4_0: dequantize_blocks<dequantize_q4_0>(block, from, out); break;
    case Encoding::kQ4_1: dequantize_blocks<dequantize_q4_1>(block, from, out); break;
    case Encoding::kQ5_0: dequantize_blocks<dequantize_q5_0>(block, from, out); break;
    case Encoding::kQ5_1: dequantize_blocks<dequantize_q5_1>(block, from, out); break;
    case Encoding::kQ4_K: dequantize_blocks<dequantize_q4_k>(block, from, out); break;
    case Encoding::kQ6_K: dequantize_blocks<dequantize_q6_k>(block, from, out); break;
  }
}

void dequantize(const EncodedRows& from, const Tensor& to) {
  if (to.dtype != DType::kF32 && to.dtype != DType::kBF16) {
    throw Error(fmt::format("rows are dequantised to f32 or bf16, not {}", name_of(to.dtype)));
  }
  const auto cols = static_cast<std::size_t>(from.cols);
  const auto bytes = static_cast<std::size_t>(from.row_bytes());
  std::vector<float> row(cols);
  for (std::int64_t i = 0; i < from.rows; ++i) {
    const std::span<const std::byte> blocks(from.data + static_cast<std::size_t>(i) * bytes, bytes);
    if (to.dtype == DType::kF32) {
      dequantize(from.encoding, blocks, {to.row<float>(i), cols});
      std::fill_n(to.row<float>(i) + cols, to.spare, 0.0F);
    } else {
      dequantize(from.encoding, blocks, row);
      std::transform(row.begin(), row.end(), to.row<BF16>(i), [](float x) { return BF16(x); });
      std::fill_n(to.row<BF16>(i) + cols, to.spare, BF16());
    }
  }
}

std::unique_ptr<float[]> dequantized(const EncodedRows& from) {
  const auto count = static_cast<std::size_t>(from.rows * from.cols);
  auto values = std::make_unique_for_overwrite<float[]>(count);
  dequantize(from.encoding, {from.data, from.bytes()}, {values.get(), count});
  return values;
}

}  // namespace lomu

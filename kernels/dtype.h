// Element types, and the 16-bit floats as plain storage types with exact conversions.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lomu {

enum class DType : std::uint8_t { kF64, kF32, kF16, kBF16, kI32 };

constexpr std::size_t size_of(DType t) {
  switch (t) {
    case DType::kF64: return 8;
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kF16:
    case DType::kBF16: return 2;
  }
  return 0;
}

/// "f64", "f32", "f16", "bf16", "i32": the spelling used in YAML, messages and metrics.
constexpr std::string_view name_of(DType t) {
  switch (t) {
    case DType::kF64: return "f64";
    case DType::kF32: return "f32";
    case DType::kF16: return "f16";
    case DType::kBF16: return "bf16";
    case DType::kI32: return "i32";
  }
  return "?";
}

/// bfloat16 storage. Widening is exact; narrowing rounds to nearest even and keeps NaN a NaN.
struct BF16 {
  std::uint16_t bits = 0;
  BF16() = default;
  explicit BF16(float x) {
    const auto u = std::bit_cast<std::uint32_t>(x);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = nan ? static_cast<std::uint16_t>((u >> 16) | 0x40u)
               : static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// IEEE binary16 storage; used to read and write files, not to compute.
struct F16 {
  std::uint16_t bits = 0;
  F16() = default;
  explicit F16(float x) : bits(std::bit_cast<std::uint16_t>(static_cast<_Float16>(x))) {}
  explicit operator float() const { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
};

static_assert(sizeof(BF16) == 2 && sizeof(F16) == 2);

}  // namespace lomu

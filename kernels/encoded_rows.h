// Rows of numbers as a file holds them: plain, halved, or quantised in blocks of llama.cpp's formats. What the numbers
// are is in dequantize.h; which files hold them is not known here. Layouts are stated with the code that reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lomu {

enum class Encoding : std::uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ6_K };

/// Rows are whole numbers of blocks. Elements are a multiple of 8, or 1.
struct BlockSize {
  std::int64_t elements = 1;
  std::int64_t bytes = 0;
};

constexpr BlockSize block_of(Encoding encoding) {
  switch (encoding) {
    case Encoding::kF32: return {1, 4};
    case Encoding::kF16:
    case Encoding::kBF16: return {1, 2};
    case Encoding::kQ8_0: return {32, 34};
    case Encoding::kQ4_0: return {32, 18};
    case Encoding::kQ4_1: return {32, 20};
    case Encoding::kQ5_0: return {32, 22};
    case Encoding::kQ5_1: return {32, 24};
    case Encoding::kQ4_K: return {256, 144};
    case Encoding::kQ6_K: return {256, 210};
  }
  return {};
}

/// "f32", "q4_1", "q6_K".
constexpr std::string_view name_of(Encoding encoding) {
  switch (encoding) {
    case Encoding::kF32: return "f32";
    case Encoding::kF16: return "f16";
    case Encoding::kBF16: return "bf16";
    case Encoding::kQ8_0: return "q8_0";
    case Encoding::kQ4_0: return "q4_0";
    case Encoding::kQ4_1: return "q4_1";
    case Encoding::kQ5_0: return "q5_0";
    case Encoding::kQ5_1: return "q5_1";
    case Encoding::kQ4_K: return "q4_K";
    case Encoding::kQ6_K: return "q6_K";
  }
  return "?";
}

/// A view: `rows` rows of `cols` elements, one after the other. In a file's mapping `data` has no alignment.
struct EncodedRows {
  Encoding encoding = Encoding::kF32;
  const std::byte* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;  ///< whole blocks

  [[nodiscard]] std::int64_t row_bytes() const {
    const BlockSize block = block_of(encoding);
    return cols / block.elements * block.bytes;
  }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(rows * row_bytes()); }
};

/// Floats that are there already.
inline EncodedRows encoded(const float* values, std::int64_t rows, std::int64_t cols) {
  return {Encoding::kF32, reinterpret_cast<const std::byte*>(values), rows, cols};
}

}  // namespace lomu

// GGUF's tensor types: how many bytes they take, and how the ten that Lomu reads become float32.
// Block layouts are ggml's (ggml-common.h) and agree bit for bit with the gguf Python package.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace lomu {

/// The numbers stored in GGUF files (ggml_type).
enum class GgmlType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ6_K = 14,
  kBF16 = 30,
};

/// A tensor type as stored: rows are whole numbers of blocks.
struct GgmlTypeInfo {
  std::uint32_t number = 0;
  std::string_view name;  ///< "q4_1"
  std::int64_t block_elements = 1;
  std::int64_t block_bytes = 0;
  bool readable = false;  ///< dequantize() knows it
};

/// Every type number that GGUF defines, readable or not; nothing for a number it does not define.
std::optional<GgmlTypeInfo> ggml_type_info(std::uint32_t number);

/// Turns whole blocks into floats. `blocks` must be out.size() / block_elements blocks of `type`.
/// Throws FormatError when the sizes do not fit each other.
void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace lomu

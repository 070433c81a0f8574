// GGUF's tensor types by number: names, how many bytes they take, and which of them Lomu reads.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/encoded_rows.h"

namespace lomu {

/// A tensor type as stored: rows are whole numbers of blocks.
struct GgmlTypeInfo {
  std::uint32_t number = 0;  ///< ggml_type
  std::string_view name;     ///< "q4_1"
  std::int64_t block_elements = 1;
  std::int64_t block_bytes = 0;
  std::optional<Encoding> encoding;  ///< nothing for a type that is not read
};

/// Every type number that GGUF defines, readable or not; nothing for a number it does not define.
std::optional<GgmlTypeInfo> ggml_type_info(std::uint32_t number);

}  // namespace lomu

// The byte alphabet of byte-level BPE: each of the 256 bytes written as one printable character, so that vocabularies
// and merges are text. Defined by OpenAI's GPT-2 encoder: printable Latin-1 characters stand for themselves, the other
// 68 bytes, in order, for U+0100 and following.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace lomu {

class ByteAlphabet {
 public:
  ByteAlphabet();

  /// The UTF-8 spelling of one byte: 0x20 is "Ġ".
  [[nodiscard]] std::string_view spelling(unsigned char byte) const { return spelling_[byte]; }
  /// All bytes of a text spelled.
  [[nodiscard]] std::string spell(std::string_view bytes) const;
  /// The bytes a spelled token stands for, or nothing when it has a character outside the alphabet.
  [[nodiscard]] std::optional<std::string> bytes_of(std::string_view spelled) const;

 private:
  std::array<std::string, 256> spelling_;
  std::array<short, 0x144> byte_of_;  // by code point; -1: not in the alphabet
};

}  // namespace lomu

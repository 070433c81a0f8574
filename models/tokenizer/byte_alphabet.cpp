#include "models/tokenizer/byte_alphabet.h"

#include "models/tokenizer/utf8.h"

namespace lomu {

ByteAlphabet::ByteAlphabet() {
  byte_of_.fill(-1);
  char32_t next_substitute = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const char32_t c = printable ? static_cast<char32_t>(byte) : next_substitute++;
    utf8_append(spelling_[static_cast<std::size_t>(byte)], c);
    byte_of_[c] = static_cast<short>(byte);
  }
}

std::string ByteAlphabet::spell(std::string_view bytes) const {
  std::string spelled;
  spelled.reserve(2 * bytes.size());
  for (const char byte : bytes) spelled += spelling_[static_cast<unsigned char>(byte)];
  return spelled;
}

std::optional<std::string> ByteAlphabet::bytes_of(std::string_view spelled) const {
  std::string bytes;
  bytes.reserve(spelled.size());
  while (!spelled.empty()) {
    std::size_t size = 0;
    const char32_t c = utf8_decode(spelled, size);
    if (c >= byte_of_.size() || byte_of_[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte_of_[c]));
    spelled.remove_prefix(size);
  }
  return bytes;
}

}  // namespace lomu

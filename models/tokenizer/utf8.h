// UTF-8: reading code points, repairing what is not UTF-8, and handing out whole characters of a byte stream.
// Not Unicode properties (unicode.h), not normalization (normalizer.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lomu {

/// U+FFFD, the replacement character, in UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// What stands at the front of a byte string.
struct Utf8Lead {
  std::size_t size;  ///< bytes of the character, or of the maximal ill-formed part (Unicode 3.9, "substitution of
                     ///< maximal subparts")
  bool valid;
  bool cut_short;  ///< not valid, but only because the string ends: more bytes could complete it
};

/// `bytes` must not be empty.
Utf8Lead utf8_lead(std::string_view bytes);

/// The code point at the front of valid UTF-8, which must not be empty; `size` receives its length in bytes.
char32_t utf8_decode(std::string_view valid, std::size_t& size);

void utf8_append(std::string& out, char32_t code_point);

bool utf8_valid(std::string_view bytes);

/// Every maximal ill-formed part becomes U+FFFD: what Rust's from_utf8_lossy and Python's errors="replace" do.
std::string utf8_repair(std::string_view bytes);

/// Collects the bytes of tokens as a model generates them and gives back text that is always whole UTF-8. Fed to the
/// end and finished, the pieces together are utf8_repair of all bytes, however they were cut.
class Utf8Stream {
 public:
  /// The text that is complete after these bytes; an unfinished character at the end (3 bytes at most) waits for the
  /// next call.
  std::string add(std::string_view bytes);
  /// The end: an unfinished character becomes U+FFFD.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace lomu

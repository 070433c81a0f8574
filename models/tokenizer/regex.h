// A compiled regular expression and the iteration over its matches, on PCRE2 with its just-in-time compiler where there
// is one. Compiled once, shared by threads; what a match needs to write lives in a RegexScratch, one a thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lomu {

/// [begin, end) bytes.
struct ByteRange {
  std::size_t begin, end;
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

class RegexScratch {
 public:
  RegexScratch();
  RegexScratch(RegexScratch&&) noexcept;
  RegexScratch& operator=(RegexScratch&&) noexcept;
  ~RegexScratch();

 private:
  friend class Regex;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Regex {
 public:
  /// `pattern`: Oniguruma's syntax. Throws UnsupportedError (a construct Lomu does not translate), FormatError (not a
  /// pattern).
  static Regex from_oniguruma(std::string_view pattern);
  /// Finds this very text.
  static Regex from_literal(std::string_view text);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  /// Appends all matches in `text` (valid UTF-8), leftmost first, without overlap; an empty match right after another
  /// is skipped. Throws FormatError when the search exceeds PCRE2's limits on backtracking.
  void find_all(std::string_view text, RegexScratch& scratch, std::vector<ByteRange>& matches) const;

 private:
  struct Impl;
  explicit Regex(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lomu

// Unicode properties as ranges of code points, where the system's libraries know another version of Unicode than the
// tokenizers library. Use the questions of unicode.h; only regex_translation.cpp needs the ranges themselves.
#pragma once

#include <span>
#include <string_view>

namespace lomu {

struct CodePointRange {
  char32_t first, last;
};

struct CategoryRange {
  char32_t first, last;
  std::string_view category;  ///< general category, two letters: "Lu"
};

/// Beyond ASCII, ascending.
std::span<const CodePointRange> numeric_ranges();
std::span<const CodePointRange> punctuation_ranges();

/// Combining marks newer than Unicode 9. The normalizers of the tokenizers library do not know their combining class
/// and treat them as ordinary characters, ascending.
std::span<const CodePointRange> unordered_mark_ranges();

/// Characters newer than Unicode 14, which PCRE2 10.40 to 10.42 take for unassigned, ascending.
std::span<const CategoryRange> recent_ranges();

}  // namespace lomu

#include "models/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <span>

#include "models/tokenizer/unicode_tables.h"

namespace lomu {
namespace {

bool contains(std::span<const CodePointRange> ranges, char32_t c) {
  const auto it = std::upper_bound(ranges.begin(), ranges.end(), c,
                                   [](char32_t value, const CodePointRange& range) { return value < range.first; });
  return it != ranges.begin() && c <= std::prev(it)->last;
}

bool between(char32_t c, char32_t first, char32_t last) {
  return c >= first && c <= last;
}

// For characters that utf8proc takes for unassigned because its Unicode is older.
bool is_recent_word_character(char32_t c) {
  const auto ranges = recent_ranges();
  const auto it = std::find_if(ranges.begin(), ranges.end(), [c](const CategoryRange& r) { return c <= r.last; });
  if (it == ranges.end() || c < it->first) return false;
  return it->category.starts_with('L') || it->category.starts_with('M') || it->category == "Nd" ||
         it->category == "Nl" || it->category == "Pc";
}

// Alphabetic characters outside the categories L, M and Nl: circled, squared and negative letters (Other_Alphabetic,
// So).
bool is_enclosed_letter(char32_t c) {
  return between(c, 0x24B6, 0x24E9) || between(c, 0x1F130, 0x1F149) || between(c, 0x1F150, 0x1F169) ||
         between(c, 0x1F170, 0x1F189);
}

}  // namespace

bool is_white_space(char32_t c) {
  return between(c, 0x09, 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || between(c, 0x2000, 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word_character(char32_t c) {
  if (c < 0x80) return between(c, '0', '9') || between(c, 'A', 'Z') || between(c, 'a', 'z') || c == '_';
  if (c == 0x200C || c == 0x200D || is_enclosed_letter(c)) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    case UTF8PROC_CATEGORY_CN: return is_recent_word_character(c);
    default: return false;
  }
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return between(c, '0', '9');
  return contains(numeric_ranges(), c);
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return between(c, '!', '/') || between(c, ':', '@') || between(c, '[', '`') || between(c, '{', '~');
  return contains(punctuation_ranges(), c);
}

bool is_unordered_mark(char32_t c) {
  return c >= 0x7FD && contains(unordered_mark_ranges(), c);
}

}  // namespace lomu

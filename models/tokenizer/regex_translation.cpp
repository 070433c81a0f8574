#include "models/tokenizer/regex_translation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "kernels/error.h"
#include "models/tokenizer/unicode_tables.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// The White_Space property, as the inside of a class, and its complement: written out because \s differs by U+180E.
constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotWhiteSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e})"
    R"(\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

// General categories that may be asked for. Not C: what is unassigned depends on the version of Unicode.
constexpr std::array<std::string_view, 29> kCategories = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me",
                                                          "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi",
                                                          "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs"};

bool is_letter(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char32_t c) {
  return c >= '0' && c <= '9';
}
char32_t lower(char32_t c) {
  return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

// The category as the inside of a class, with the characters PCRE2's Unicode may not know.
std::string category_items(std::string_view category) {
  std::string items = fmt::format("\\p{{{}}}", category);
  for (const CategoryRange& range : recent_ranges()) {
    if (!range.category.starts_with(category)) continue;
    items += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", static_cast<std::uint32_t>(range.first),
                         static_cast<std::uint32_t>(range.last));
  }
  return items;
}

std::string literal(char32_t c) {
  std::string out;
  if (c < 0x80 && !is_letter(c) && !is_digit(c)) {
    if (c < 0x20 || c == 0x7F) return fmt::format("\\x{{{:x}}}", static_cast<std::uint32_t>(c));
    out.push_back('\\');
  }
  utf8_append(out, c);
  return out;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (!at_end()) step();
    if (!groups_.empty()) refuse("a group that is not closed");
    return std::move(out_);
  }

 private:
  struct Group {
    std::size_t start;  // of the group in out_
    bool fold_outside;  // whether case is ignored around the group
  };

  // One member of a class or one escape: a character, or the inside of a class.
  struct Item {
    std::optional<char32_t> character;
    std::string set;
    bool negated = false;
  };

  [[nodiscard]] bool at_end() const { return pos_ >= pattern_.size(); }
  [[nodiscard]] bool next_is(std::string_view text) const { return pattern_.substr(pos_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    pos_ += text.size();
    return true;
  }
  char32_t take_character() {
    if (at_end()) refuse("an unfinished escape or class");
    std::size_t size = 0;
    const char32_t c = utf8_decode(pattern_.substr(pos_), size);
    pos_ += size;
    return c;
  }

  [[noreturn]] void refuse(std::string_view construct) const {
    throw UnsupportedError(fmt::format("a regular expression with {} is not implemented (at byte {} of \"{}\")",
                                       construct, std::min(pos_, pattern_.size()),
                                       utf8_repair(pattern_.substr(0, 160))));
  }

  // Everything that a quantifier may follow goes through here.
  void atom(std::string_view text) {
    atom_ = out_.size();
    out_ += text;
    previous_literal_ = 0;
  }

  void step() {
    if (quantifier()) return;
    if (take("(")) return open_group();
    if (take(")")) return close_group();
    if (take("[")) return atom(char_class());
    if (take("|")) return assertion("|");
    if (take("^")) return assertion("^");
    if (take("$")) return assertion("$");
    if (take(".")) return atom(".");
    if (take("\\")) {
      if (take("A")) return assertion("\\A");
      if (take("z")) return assertion("\\z");
      const Item item = escape();
      if (!item.character) return atom(fmt::format("[{}{}]", item.negated ? "^" : "", item.set));
      return literal_atom(*item.character);
    }
    literal_atom(take_character());
  }

  void assertion(std::string_view text) {
    out_ += text;
    atom_.reset();
    previous_literal_ = 0;
  }

  void literal_atom(char32_t c) {
    if (fold_) check_folding(c);
    const char32_t previous = previous_literal_;
    atom(literal(c));
    previous_literal_ = c;
    if (!fold_) return;
    // Ignoring case, Oniguruma lets "ss" match "ß" and "fi" the ligature; PCRE2 folds single characters only.
    constexpr std::array<std::string_view, 5> kJoined = {"ss", "st", "ff", "fi", "fl"};
    for (const std::string_view pair : kJoined) {
      if (lower(previous) == static_cast<char32_t>(pair[0]) && lower(c) == static_cast<char32_t>(pair[1])) {
        refuse(fmt::format("\"{}\" where case is ignored", pair));
      }
    }
  }

  void check_folding(char32_t c) const {
    if (c >= 0x80) refuse("a character outside ASCII where case is ignored");
  }

  bool quantifier() {
    std::string text;
    bool interval = false;
    if (take("*")) {
      text = "*";
    } else if (take("+")) {
      text = "+";
    } else if (take("?")) {
      text = "?";
    } else if (next_is("{")) {
      text = read_interval();
      interval = true;
      if (text.empty()) return false;
    } else {
      return false;
    }
    if (!atom_) refuse("a quantifier that follows nothing");
    const bool exact = interval && text.find(',') == std::string::npos;
    if (exact && next_is("?")) refuse("{n}?");  // optional in Oniguruma, lazy in PCRE2
    out_ += text;
    if (take("?")) {
      out_ += '?';
    } else if (take("+")) {
      if (interval) {  // Oniguruma repeats the interval, PCRE2 would make it possessive
        const std::string repeated = out_.substr(*atom_);
        out_.resize(*atom_);
        out_ += fmt::format("(?:{})+", repeated);
      } else {
        out_ += '+';
      }
    }
    if (next_is("*") || next_is("+") || next_is("?")) refuse("a quantifier of a quantifier");
    previous_literal_ = 0;
    return true;
  }

  // "{n}", "{n,}", "{n,m}" or "{,m}", in PCRE2's spelling; empty when the brace is a literal.
  std::string read_interval() {
    std::size_t at = pos_ + 1;
    const auto number = [&] {
      const std::size_t begin = at;
      while (at < pattern_.size() && is_digit(static_cast<unsigned char>(pattern_[at]))) ++at;
      return std::string(pattern_.substr(begin, at - begin));
    };
    std::string low = number();
    const bool comma = at < pattern_.size() && pattern_[at] == ',';
    std::string high;
    if (comma) {
      ++at;
      high = number();
    }
    if (at >= pattern_.size() || pattern_[at] != '}' || (low.empty() && high.empty())) return {};
    pos_ = at + 1;
    if (low.empty()) low.push_back('0');
    return comma ? fmt::format("{{{},{}}}", low, high) : fmt::format("{{{}}}", low);
  }

  void open_group() {
    groups_.push_back({out_.size(), fold_});
    for (const std::string_view kind : {"?:", "?=", "?!", "?<=", "?<!", "?>"}) {
      if (take(kind)) {
        out_ += fmt::format("({}", kind);
        return begin_group();
      }
    }
    for (const bool fold : {true, false}) {
      const std::string_view kind = fold ? "?i:" : "?-i:";
      if (take(kind)) {
        fold_ = fold;
        out_ += fmt::format("({}", kind);
        return begin_group();
      }
    }
    if (out_.empty() && take("?i)")) {  // in front of everything it means the same in both
      groups_.pop_back();
      fold_ = true;
      out_ += "(?i)";
      return begin_group();
    }
    if (next_is("?") || next_is("*")) refuse(fmt::format("the group ({}", pattern_.substr(pos_, 3)));
    out_ += "(?:";
    begin_group();
  }

  void begin_group() {
    atom_.reset();
    previous_literal_ = 0;
  }

  void close_group() {
    if (groups_.empty()) refuse("a ) without (");
    out_ += ')';
    atom_ = groups_.back().start;
    fold_ = groups_.back().fold_outside;
    groups_.pop_back();
    previous_literal_ = 0;
  }

  std::string char_class() {
    std::string text = take("^") ? "[^" : "[";
    text += class_items();
    text += ']';
    return text;
  }

  // The members of a class up to its closing bracket. A class inside it adds its members.
  std::string class_items(int depth = 0) {
    constexpr int kDeepest = 8;
    std::string items;
    bool first = true;
    while (first || !next_is("]")) {
      if (at_end()) refuse("a class that is not closed");
      if (next_is("&&")) refuse("an intersection of classes");
      if (take("[")) {
        if (next_is("^") || next_is(":") || depth == kDeepest) refuse("a negated, named or deep class inside a class");
        items += class_items(depth + 1);
        first = false;
        continue;
      }
      const Item item = class_item();
      first = false;
      if (!item.character) {
        if (item.negated) refuse("a negated property inside a class");
        items += item.set;
        continue;
      }
      if (fold_) check_folding(*item.character);
      items += literal(*item.character);
      const bool range = next_is("-") && pos_ + 1 < pattern_.size() && pattern_[pos_ + 1] != ']';
      if (!range) continue;
      pos_ += 1;
      if (next_is("[")) refuse("a range that ends in a class");
      const Item last = class_item();
      if (!last.character || *last.character < *item.character) refuse("a range without a proper end");
      if (fold_) check_folding(*last.character);
      items += '-';
      items += literal(*last.character);
    }
    pos_ += 1;
    return items;
  }

  Item class_item() {
    if (take("\\")) {
      Item item = escape();
      if (item.negated && item.set == kWhiteSpace) return {std::nullopt, std::string(kNotWhiteSpace), false};
      return item;
    }
    return {take_character(), {}, false};
  }

  // After a backslash.
  Item escape() {
    const char32_t c = take_character();
    switch (c) {
      case 's': return {std::nullopt, std::string(kWhiteSpace), false};
      case 'S': return {std::nullopt, std::string(kWhiteSpace), true};
      case 'd': return {std::nullopt, category_items("Nd"), false};
      case 'D': return {std::nullopt, category_items("Nd"), true};
      case 'p': return property(false);
      case 'P': return property(true);
      case 'n': return {U'\n', {}, false};
      case 'r': return {U'\r', {}, false};
      case 't': return {U'\t', {}, false};
      case 'f': return {U'\f', {}, false};
      case 'v': return {U'\v', {}, false};
      case 'a': return {U'\a', {}, false};
      case 'e': return {U'\x1B', {}, false};
      case 'x': return {take("{") ? hex_character(1, 8, "}") : hex_character(1, 2, ""), {}, false};
      case 'u': return {hex_character(4, 4, ""), {}, false};
      default: break;
    }
    if (is_letter(c) || is_digit(c)) refuse(fmt::format("\\{}", static_cast<char>(c)));
    return {c, {}, false};
  }

  char32_t hex_character(int min_digits, int max_digits, std::string_view closing) {
    char32_t value = 0;
    int digits = 0;
    for (; digits < max_digits && !at_end(); ++digits) {
      const auto c = lower(static_cast<unsigned char>(pattern_[pos_]));
      if (is_digit(c)) {
        value = value * 16 + (c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value = value * 16 + (c - 'a' + 10);
      } else {
        break;
      }
      ++pos_;
    }
    if (digits < min_digits || !take(closing)) refuse("an unfinished hexadecimal escape");
    // A two-digit escape above 7F would be one byte of a character to Oniguruma.
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000) || (max_digits == 2 && value > 0x7F)) {
      refuse("an escape that is no character");
    }
    return value;
  }

  Item property(bool negated) {
    if (!take("{")) refuse("\\p without braces");
    if (take("^")) negated = !negated;
    const std::size_t close = pattern_.find('}', pos_);
    if (close == std::string_view::npos) refuse("\\p without a closing brace");
    const std::string_view name = pattern_.substr(pos_, close - pos_);
    if (std::find(kCategories.begin(), kCategories.end(), name) == kCategories.end()) {
      refuse(fmt::format("\\p{{{}}}", name));
    }
    pos_ = close + 1;
    return {std::nullopt, category_items(name), negated};
  }

  std::string_view pattern_;
  std::size_t pos_ = 0;
  std::string out_;
  std::optional<std::size_t> atom_;  // where the thing a quantifier would repeat begins in out_
  std::vector<Group> groups_;
  bool fold_ = false;
  char32_t previous_literal_ = 0;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern) {
  return Translator(pattern).run();
}

std::string regex_of_literal(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    std::size_t size = 0;
    out += literal(utf8_decode(text, size));
    text.remove_prefix(size);
  }
  return out;
}

}  // namespace lomu

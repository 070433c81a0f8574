#include "engine/config/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <system_error>

namespace lomu::config {
namespace {

constexpr std::size_t kShownCharacters = 60;

std::string shown(const Scalar& scalar) {
  std::string text = scalar.text.substr(0, kShownCharacters);
  if (scalar.text.size() > kShownCharacters) text += "...";
  return scalar.quoted ? fmt::format("\"{}\"", text) : fmt::format("`{}`", text);
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Digits with _ or , between them, as 1_000 or 1,000: what people write for readability.
std::string without_separators(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != '_' && c != ',') out += c;
  }
  return out;
}

[[noreturn]] void refuse_number(const Scalar& scalar, std::string_view expected) {
  std::string hint;
  const std::string bare = without_separators(scalar.text);
  if (scalar.quoted) {
    hint = "remove the quotes";
  } else if (bare != scalar.text && !bare.empty() && std::ranges::all_of(bare, is_digit)) {
    hint = fmt::format("write {}", bare);
  }
  throw BadValue(fmt::format("{} is not {}", shown(scalar), expected), hint);
}

/// [+-] digits [. digits] [e [+-] digits] with at least one digit before the exponent.
bool looks_like_number(std::string_view text) {
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) text.remove_prefix(1);
  const auto take_digits = [&text] {
    const auto end = std::ranges::find_if_not(text, is_digit);
    const auto count = static_cast<std::size_t>(end - text.begin());
    text.remove_prefix(count);
    return count;
  };
  std::size_t digits = take_digits();
  if (!text.empty() && text.front() == '.') {
    text.remove_prefix(1);
    digits += take_digits();
  }
  if (digits == 0) return false;
  if (text.empty()) return true;
  if (text.front() != 'e' && text.front() != 'E') return false;
  text.remove_prefix(1);
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) text.remove_prefix(1);
  return take_digits() > 0 && text.empty();
}

/// from_chars does not take a leading plus.
std::string_view without_plus(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  return text;
}

bool is_plain_text(std::string_view text) {
  constexpr std::string_view kSafe = "_./-+@%";
  constexpr std::array<std::string_view, 7> kOtherReadersTake = {"true", "false", "yes", "no", "on", "off", "null"};
  if (text.empty() || text.front() == '-' || text.front() == '%' || text.front() == '@' || text.starts_with("...") ||
      looks_like_number(text) || std::ranges::find(kOtherReadersTake, lower(text)) != kOtherReadersTake.end()) {
    return false;
  }
  return std::ranges::all_of(text, [kSafe](unsigned char c) {
    return c < 128 && (std::isalnum(c) != 0 || kSafe.find(static_cast<char>(c)) != std::string_view::npos);
  });
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

std::string text_to_yaml(std::string_view text) {
  return is_plain_text(text) ? std::string(text) : quoted(text);
}

struct ToYaml {
  std::string operator()(std::monostate) const { return "null"; }
  std::string operator()(bool b) const { return b ? "true" : "false"; }
  std::string operator()(std::int64_t i) const { return fmt::format("{}", i); }
  std::string operator()(double d) const { return fmt::format("{}", d); }
  std::string operator()(const std::string& text) const { return text_to_yaml(text); }
  std::string operator()(const std::vector<std::string>& list) const {
    std::string out = "[";
    for (const auto& item : list) {
      if (out.size() > 1) out += ", ";
      out += text_to_yaml(item);
    }
    return out + "]";
  }
};

}  // namespace

bool is_null(const Scalar& scalar) {
  return !scalar.quoted && (scalar.text.empty() || scalar.text == "~" || lower(scalar.text) == "null");
}

bool read_boolean(const Scalar& scalar) {
  const std::string text = lower(scalar.text);
  if (!scalar.quoted && text == "true") return true;
  if (!scalar.quoted && text == "false") return false;
  std::string hint;
  if (text == "yes" || text == "on" || text == "y" || text == "1" || text == "true") hint = "write true";
  if (text == "no" || text == "off" || text == "n" || text == "0" || text == "false") hint = "write false";
  throw BadValue(fmt::format("{} is not true or false", shown(scalar)), hint);
}

std::int64_t read_integer(const Scalar& scalar) {
  constexpr std::string_view kExpected = "an integer";
  if (scalar.quoted || !looks_like_number(scalar.text)) refuse_number(scalar, kExpected);
  const std::string_view text = without_plus(scalar.text);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) throw BadValue(fmt::format("{} is too large", shown(scalar)));
  if (error != std::errc() || end != text.data() + text.size()) {
    const double number = read_number(scalar);
    if (number == std::floor(number) && std::abs(number) < 1e15) {
      throw BadValue(fmt::format("{} is not {}", shown(scalar), kExpected), fmt::format("write {:.0f}", number));
    }
    refuse_number(scalar, kExpected);
  }
  const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  if (digits.size() > 1 && digits.front() == '0') {
    throw BadValue(fmt::format("{} starts with 0, which some YAML readers take for octal", shown(scalar)),
                   fmt::format("write {}", value));
  }
  return value;
}

double read_number(const Scalar& scalar) {
  if (scalar.quoted || !looks_like_number(scalar.text)) refuse_number(scalar, "a finite number");
  const std::string_view text = without_plus(scalar.text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range || !std::isfinite(value)) {
    throw BadValue(fmt::format("{} is beyond what a double holds", shown(scalar)));
  }
  if (error != std::errc() || end != text.data() + text.size()) refuse_number(scalar, "a finite number");
  return value;
}

std::string to_yaml(const Value& value) {
  return std::visit(ToYaml{}, value);
}

}  // namespace lomu::config

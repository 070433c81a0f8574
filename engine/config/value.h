// A configuration value outside its struct: the one form in which the key table reads, compares and prints it.
// Not a YAML node: it has no marks, no tags and no nesting.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lomu::config {

/// monostate: a key that has no value, or one that is switched off.
using Value = std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<std::string>>;

/// A scalar as the user wrote it. Quotes matter: "16" in quotes is text, not a number.
struct Scalar {
  std::string text;
  bool quoted = false;
};

/// What was written for one key: one scalar, or a list of them.
struct Written {
  std::vector<Scalar> items;
  bool list = false;
};

/// A value that its key cannot take. what(): one sentence without the place; hint: what to write instead.
class BadValue : public std::runtime_error {
 public:
  explicit BadValue(std::string what, std::string hint = {})
      : std::runtime_error(std::move(what)), hint_(std::move(hint)) {}
  [[nodiscard]] const std::string& hint() const noexcept { return hint_; }

 private:
  std::string hint_;
};

/// Readers of one scalar; each throws BadValue with the value shown and the expected type named.
/// Only YAML 1.2 spellings: true and false; decimal integers; decimal and scientific numbers. No octal, hexadecimal,
/// yes/no/on/off, digit separators, infinity or NaN.
bool read_boolean(const Scalar& scalar);
std::int64_t read_integer(const Scalar& scalar);
double read_number(const Scalar& scalar);

/// True for the ways YAML writes "nothing": an empty plain scalar, ~, null.
bool is_null(const Scalar& scalar);

/// YAML text that reads back to the same value; text is quoted where a reader could take it for something else.
std::string to_yaml(const Value& value);

}  // namespace lomu::config

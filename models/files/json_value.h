// A JSON document as plain values, for small configuration files and safetensors headers: strict (no duplicate keys,
// bounded depth), and typed access whose errors name file and key. Not for data sets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lomu {

class JsonValue;
using JsonArray = std::vector<JsonValue>;
using JsonObject = std::vector<std::pair<std::string, JsonValue>>;  // in the order of the file

class JsonValue {
 public:
  using Storage = std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, JsonArray, JsonObject>;

  JsonValue() = default;
  explicit JsonValue(Storage value) : value_(std::move(value)) {}

  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  [[nodiscard]] const bool* if_bool() const { return std::get_if<bool>(&value_); }
  [[nodiscard]] const std::int64_t* if_integer() const { return std::get_if<std::int64_t>(&value_); }
  [[nodiscard]] const std::string* if_string() const { return std::get_if<std::string>(&value_); }
  [[nodiscard]] const JsonArray* if_array() const { return std::get_if<JsonArray>(&value_); }
  [[nodiscard]] const JsonObject* if_object() const { return std::get_if<JsonObject>(&value_); }
  /// A number, written as integer or not.
  [[nodiscard]] std::optional<double> if_number() const;
  [[nodiscard]] bool is_object() const { return if_object() != nullptr; }

  /// "null", "a boolean", "an integer", ...: for messages.
  [[nodiscard]] std::string_view kind() const;

  /// The member of an object, or null when this is no object or has no such key.
  [[nodiscard]] const JsonValue* find(std::string_view key) const;

 private:
  Storage value_;
};

/// Parses one document. `where` names it in errors ("path"); a syntax error adds the line. Integers outside int64
/// become double, so that they are refused where an integer is needed. Throws FormatError.
JsonValue parse_json(std::string_view text, const std::string& where, int max_depth = 32);

/// Reads and parses a file of at most `max_bytes`. Throws FileError, FormatError.
JsonValue read_json_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t{1} << 26);

/// Typed members of one object. A key that is absent or null gives nothing; a wrong type throws FormatError naming the
/// key.
class JsonFields {
 public:
  /// `prefix` is put before keys in messages: "rope_scaling." for a nested object. The object must outlive this.
  JsonFields(const JsonValue& object, std::string where, std::string prefix = {});

  [[nodiscard]] bool has(std::string_view key) const;  ///< present and not null
  [[nodiscard]] const JsonValue* find(std::string_view key) const { return object_->find(key); }
  [[nodiscard]] std::optional<std::int64_t> integer(std::string_view key) const;
  [[nodiscard]] std::optional<double> number(std::string_view key) const;
  [[nodiscard]] std::optional<bool> boolean(std::string_view key) const;
  [[nodiscard]] std::optional<std::string> string(std::string_view key) const;
  [[nodiscard]] std::optional<JsonFields> object(std::string_view key) const;
  /// One integer or a list of them.
  [[nodiscard]] std::optional<std::vector<std::int64_t>> integers(std::string_view key) const;
  [[nodiscard]] std::optional<std::vector<std::string>> strings(std::string_view key) const;

  [[nodiscard]] const std::string& where() const { return where_; }
  /// Throws FormatError: "KEY must be EXPECTED, not KIND".
  [[noreturn]] void wrong(std::string_view key, std::string_view expected) const;

 private:
  const JsonValue* object_;
  std::string where_;
  std::string prefix_;
};

}  // namespace lomu

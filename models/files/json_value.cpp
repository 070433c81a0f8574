#include "models/files/json_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "kernels/error.h"
#include "models/files/mapped_file.h"

namespace lomu {
namespace {

// Builds JsonValue from parser events: the only place where limits and duplicate keys are judged.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string_view text, std::string where, int max_depth)
      : text_(text), where_(std::move(where)), max_depth_(max_depth) {}

  JsonValue take() { return std::move(root_); }

  bool null() override { return put(JsonValue(nullptr)); }
  bool boolean(bool v) override { return put(JsonValue(v)); }
  bool number_integer(number_integer_t v) override { return put(JsonValue(std::int64_t{v})); }
  bool number_unsigned(number_unsigned_t v) override {
    if (v <= static_cast<std::uint64_t>(INT64_MAX)) return put(JsonValue(static_cast<std::int64_t>(v)));
    return put(JsonValue(static_cast<double>(v)));
  }
  bool number_float(number_float_t v, const string_t&) override { return put(JsonValue(v)); }
  bool string(string_t& v) override { return put(JsonValue(std::move(v))); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(JsonValue::Storage(JsonObject{})); }
  bool key(string_t& k) override {
    Level& level = levels_.back();
    if (!level.keys.insert(k).second) throw FormatError(fmt::format("the key \"{}\" appears twice", k), where_);
    level.key = std::move(k);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(JsonValue::Storage(JsonArray{})); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) override {
    const std::string_view before = text_.substr(0, std::min(position, text_.size()));
    std::string_view reason = e.what();
    if (const auto colon = reason.find(": "); colon != std::string_view::npos) reason.remove_prefix(colon + 2);
    throw FormatError(fmt::format("not valid JSON: {}", reason.substr(0, 160)),
                      fmt::format("{}:{}", where_, 1 + std::count(before.begin(), before.end(), '\n')));
  }

 private:
  struct Level {
    JsonValue::Storage value;
    std::string key;
    std::unordered_set<std::string> keys;
  };

  bool open(JsonValue::Storage empty) {
    if (levels_.size() >= static_cast<std::size_t>(max_depth_)) {
      throw FormatError(fmt::format("JSON is nested deeper than {} levels", max_depth_), where_);
    }
    levels_.push_back({std::move(empty), {}, {}});
    return true;
  }

  bool close() {
    JsonValue done(std::move(levels_.back().value));
    levels_.pop_back();
    return put(std::move(done));
  }

  bool put(JsonValue value) {
    if (levels_.empty()) {
      root_ = std::move(value);
    } else if (auto* array = std::get_if<JsonArray>(&levels_.back().value)) {
      array->push_back(std::move(value));
    } else {
      std::get<JsonObject>(levels_.back().value).emplace_back(std::move(levels_.back().key), std::move(value));
    }
    return true;
  }

  std::string_view text_;
  std::string where_;
  int max_depth_;
  JsonValue root_;
  std::vector<Level> levels_;
};

}  // namespace

std::optional<double> JsonValue::if_number() const {
  if (const auto* integer = if_integer()) return static_cast<double>(*integer);
  if (const auto* real = std::get_if<double>(&value_)) return *real;
  return std::nullopt;
}

std::string_view JsonValue::kind() const {
  constexpr std::string_view kKinds[] = {"null",     "a boolean", "an integer", "a number",
                                         "a string", "a list",    "an object"};
  return kKinds[value_.index()];
}

const JsonValue* JsonValue::find(std::string_view key) const {
  const auto* object = if_object();
  if (object == nullptr) return nullptr;
  const auto it = std::find_if(object->begin(), object->end(), [&](const auto& member) { return member.first == key; });
  return it == object->end() ? nullptr : &it->second;
}

JsonValue parse_json(std::string_view text, const std::string& where, int max_depth) {
  Builder builder(text, where, max_depth);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

JsonValue read_json_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  const MappedFile file(path);
  if (file.size() > max_bytes) {
    throw FormatError(fmt::format("the file has {} bytes; a file of this kind has at most {}", file.size(), max_bytes),
                      path.string());
  }
  return parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.size()}, path.string());
}

JsonFields::JsonFields(const JsonValue& object, std::string where, std::string prefix)
    : object_(&object), where_(std::move(where)), prefix_(std::move(prefix)) {
  if (!object.is_object()) {
    throw FormatError(prefix_.empty() ? fmt::format("expected a JSON object, found {}", object.kind())
                                      : fmt::format("{} must be an object, not {}",
                                                    prefix_.substr(0, prefix_.size() - 1), object.kind()),
                      where_);
  }
}

bool JsonFields::has(std::string_view key) const {
  const JsonValue* value = object_->find(key);
  return value != nullptr && !value->is_null();
}

void JsonFields::wrong(std::string_view key, std::string_view expected) const {
  const JsonValue* value = object_->find(key);
  throw FormatError(
      fmt::format("{}{} must be {}, not {}", prefix_, key, expected, value == nullptr ? "missing" : value->kind()),
      where_);
}

std::optional<std::int64_t> JsonFields::integer(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  if (const auto* v = find(key)->if_integer()) return *v;
  wrong(key, "an integer");
}

std::optional<double> JsonFields::number(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  if (const auto v = find(key)->if_number()) return *v;
  wrong(key, "a number");
}

std::optional<bool> JsonFields::boolean(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  if (const auto* v = find(key)->if_bool()) return *v;
  wrong(key, "true or false");
}

std::optional<std::string> JsonFields::string(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  if (const auto* v = find(key)->if_string()) return *v;
  wrong(key, "a string");
}

std::optional<JsonFields> JsonFields::object(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return JsonFields(*find(key), where_, fmt::format("{}{}.", prefix_, key));
}

std::optional<std::vector<std::int64_t>> JsonFields::integers(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  const JsonValue& value = *find(key);
  if (const auto* one = value.if_integer()) return std::vector{*one};
  const auto* list = value.if_array();
  if (list == nullptr) wrong(key, "an integer or a list of integers");
  std::vector<std::int64_t> result;
  for (const JsonValue& item : *list) {
    if (item.if_integer() == nullptr) wrong(key, "a list of integers only");
    result.push_back(*item.if_integer());
  }
  return result;
}

std::optional<std::vector<std::string>> JsonFields::strings(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  const auto* list = find(key)->if_array();
  if (list == nullptr) wrong(key, "a list of strings");
  std::vector<std::string> result;
  for (const JsonValue& item : *list) {
    if (item.if_string() == nullptr) wrong(key, "a list of strings only");
    result.push_back(*item.if_string());
  }
  return result;
}

}  // namespace lomu

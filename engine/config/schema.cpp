#include "engine/config/schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>

#include "engine/config/nearest.h"

namespace lomu::config {
namespace {

// From here on a limit protects the program rather than saying something about the key, and messages leave it out.
constexpr double kNoRealLimit = 1e6;

std::string range_text(const Range& range, bool integer) {
  const auto number = [integer](double x) { return integer ? fmt::format("{:.0f}", x) : fmt::format("{}", x); };
  const bool low = std::isfinite(range.low);
  const bool high = range.high < kNoRealLimit;
  if (low && high && integer) return fmt::format("{}..{}", number(range.low), number(range.high));
  if (low && high) {
    return fmt::format("{} {} x {} {}", number(range.low),
                       range.low_open ? "<" : "<=", range.high_open ? "<" : "<=", number(range.high));
  }
  if (low) return fmt::format("{} {}", range.low_open ? ">" : ">=", number(range.low));
  if (high) return fmt::format("{} {}", range.high_open ? "<" : "<=", number(range.high));
  return {};
}

std::string choices_text(const Field& field, std::string_view separator) {
  std::vector<std::string_view> names;
  for (const auto& choice : field.choices) names.push_back(choice.name);
  return fmt::format("{}", fmt::join(names, separator));
}

template <class T>
T in_range(const Field& field, const Scalar& scalar, T value) {
  const Range& range = field.range;
  const auto x = static_cast<double>(value);
  const bool low_ok = range.low_open ? x > range.low : x >= range.low;
  const bool high_ok = range.high_open ? x < range.high : x <= range.high;
  if (low_ok && high_ok) return value;
  if (low_ok && range.high >= kNoRealLimit) {
    throw BadValue(fmt::format("{} is too large", scalar.text), fmt::format("at most {:.0f}", range.high));
  }
  throw BadValue(fmt::format("{} is out of range", scalar.text), fmt::format("allowed: {}", allowed_text(field)));
}

std::string read_choice(const Field& field, const Scalar& scalar) {
  std::vector<std::string> names;
  for (const auto& choice : field.choices) names.push_back(choice.name);
  if (std::ranges::find(names, scalar.text) != names.end()) return scalar.text;
  std::string hint = fmt::format("allowed: {}", choices_text(field, ", "));
  if (const auto close = nearest(scalar.text, names)) hint = fmt::format("did you mean `{}`? {}", *close, hint);
  throw BadValue(fmt::format("`{}` is not one of its values", scalar.text), hint);
}

std::string read_path(const Scalar& scalar) {
  if (scalar.text.empty()) throw BadValue("the path is empty");
  if (scalar.text.starts_with('~')) {
    throw BadValue(fmt::format("`{}`: ~ is not expanded", scalar.text), "write the folder out, as /home/you/...");
  }
  if (scalar.text.find('\0') != std::string::npos) throw BadValue("the path holds a zero byte");
  return scalar.text;
}

Value read_scalar(const Field& field, const Scalar& scalar) {
  if (is_null(scalar)) {
    throw BadValue("the key has no value",
                   field.required
                       ? "give it one: the key is required"
                       : fmt::format("give it one, or remove the key: its default is {}", default_text(field)));
  }
  if (!field.off_word.empty() && scalar.text == field.off_word) return {};
  switch (field.type) {
    case Type::kBoolean: return read_boolean(scalar);
    case Type::kInteger: return in_range(field, scalar, read_integer(scalar));
    case Type::kNumber: return in_range(field, scalar, read_number(scalar));
    case Type::kChoice: return read_choice(field, scalar);
    case Type::kPath:
    case Type::kPathList: return read_path(scalar);
    case Type::kText:
    case Type::kTextList: return scalar.text;
  }
  return {};
}

bool is_list(const Field& field) {
  return field.type == Type::kTextList || field.type == Type::kPathList;
}

}  // namespace

std::string Field::when_text() const {
  const auto before_last = std::span(when_values).first(when_values.size() - 1);
  const std::string before = fmt::format("{}", fmt::join(before_last, ", "));
  return fmt::format("{}: {}{}{}", when_key, before, before.empty() ? "" : " or ", when_values.back());
}
std::string_view Field::section() const {
  return std::string_view(path).substr(0, path.rfind('.'));
}
std::string_view Field::name() const {
  return std::string_view(path).substr(path.rfind('.') + 1);
}

Schema::Schema(std::vector<SectionInfo> sections, std::vector<Field> fields, std::vector<ItemList> lists)
    : sections_(std::move(sections)), fields_(std::move(fields)), lists_(std::move(lists)) {}

const ItemList* Schema::find_list(std::string_view path) const {
  const auto it = std::ranges::find(lists_, path, &ItemList::path);
  return it == lists_.end() ? nullptr : &*it;
}

const Field* Schema::find(std::string_view path) const {
  const auto it = std::ranges::find(fields_, path, &Field::path);
  return it == fields_.end() ? nullptr : &*it;
}

bool Schema::is_section(std::string_view path) const {
  return std::ranges::find(sections_, path, &SectionInfo::path) != sections_.end();
}

bool Schema::applies(const Field& field, const TrainConfig& config) const {
  if (field.when_key.empty()) return true;
  const Field* key = find(field.when_key);
  return key != nullptr &&
         std::ranges::find(field.when_values, value_text(*key, key->get(config))) != field.when_values.end();
}

Value read_value(const Field& field, const Written& written) {
  if (!is_list(field)) {
    if (written.list || written.items.size() != 1) {
      throw BadValue(fmt::format("a list was given where one value is expected ({})", allowed_text(field)));
    }
    return read_scalar(field, written.items.front());
  }
  std::vector<std::string> list;
  for (const Scalar& item : written.items) list.push_back(std::get<std::string>(read_scalar(field, item)));
  if (list.empty()) throw BadValue("the list is empty", "give at least one entry");
  return list;
}

std::string allowed_text(const Field& field) {
  const auto with_range = [&field](std::string type, bool integer) {
    const std::string range = range_text(field.range, integer);
    if (!range.empty()) type += " " + range;
    return field.off_word.empty() ? type : type + " or " + field.off_word;
  };
  switch (field.type) {
    case Type::kBoolean: return "true | false";
    case Type::kInteger: return with_range("integer", true);
    case Type::kNumber: return with_range("number", false);
    case Type::kText: return "text";
    case Type::kPath: return "path";
    case Type::kChoice: return choices_text(field, " | ");
    case Type::kTextList: return "list of names";
    case Type::kPathList: return "path or list of paths";
  }
  return {};
}

std::string value_text(const Field& field, const Value& value) {
  if (std::holds_alternative<std::monostate>(value)) return field.off_word.empty() ? "none" : field.off_word;
  if (const auto* list = std::get_if<std::vector<std::string>>(&value); list != nullptr && list->size() == 1) {
    return to_yaml(list->front());
  }
  return to_yaml(value);
}

std::string value_text(const TrainConfig& config, std::string_view path) {
  const Field* field = train_schema().find(path);
  if (field == nullptr) throw std::out_of_range(fmt::format("no configuration key {}", path));
  return value_text(*field, field->get(config));
}

std::string default_text(const Field& field) {
  if (field.required) return "required";
  if (!field.default_note.empty()) return field.default_note;
  return value_text(field, field.get(TrainConfig{}));
}

}  // namespace lomu::config

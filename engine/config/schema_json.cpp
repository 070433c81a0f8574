#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/config/schema_text.h"

namespace lomu::config {
namespace {

using Json = nlohmann::ordered_json;

/// 1 rather than 1.0: editors show the limits and defaults as they are written here.
Json number(double x) {
  if (x == std::floor(x) && std::abs(x) < 9e15) return static_cast<std::int64_t>(x);
  return x;
}

struct ToJson {
  Json operator()(std::monostate) const { return nullptr; }
  Json operator()(double x) const { return number(x); }
  template <class T>
  Json operator()(const T& x) const {
    return x;
  }
};

std::string description(const Field& field) {
  std::string text = field.meaning;
  if (!field.unit.empty()) text += fmt::format(" ({})", field.unit);
  text += fmt::format(". Default: {}.", default_text(field));
  if (!field.when_key.empty()) text += fmt::format(" Only with {}.", field.when_text());
  if (!field.excludes.empty()) text += fmt::format(" Not together with {}.", field.excludes);
  for (const Choice& choice : field.choices) {
    if (!choice.meaning.empty()) text += fmt::format("\n- {}: {}", choice.name, choice.meaning);
  }
  return text;
}

Json with_range(Json json, const Range& range) {
  if (std::isfinite(range.low)) json[range.low_open ? "exclusiveMinimum" : "minimum"] = number(range.low);
  if (std::isfinite(range.high)) json[range.high_open ? "exclusiveMaximum" : "maximum"] = number(range.high);
  return json;
}

Json list_of(Json item) {
  const Json list = {{"type", "array"}, {"items", item}, {"minItems", 1}};
  return {{"anyOf", Json::array({item, list})}};
}

Json type_of(const Field& field) {
  const Json text = {{"type", "string"}, {"minLength", 1}};
  switch (field.type) {
    case Type::kBoolean: return {{"type", "boolean"}};
    case Type::kInteger: return with_range({{"type", "integer"}}, field.range);
    case Type::kNumber: {
      Json json = with_range({{"type", "number"}}, field.range);
      if (field.off_word.empty()) return json;
      // An editor that reads YAML 1.1 sees a plain `off` as false.
      return {{"anyOf", Json::array({json, {{"enum", Json::array({field.off_word, false})}}})}};
    }
    case Type::kText:
    case Type::kPath: return text;
    case Type::kChoice: {
      Json names = Json::array();
      for (const Choice& choice : field.choices) names.push_back(choice.name);
      return {{"enum", names}};
    }
    case Type::kPathList: return list_of(text);
    case Type::kTextList: return list_of({{"type", Json::array({"string", "integer"})}});
  }
  return Json::object();
}

Json property(const Field& field) {
  Json json = type_of(field);
  json["description"] = description(field);
  const bool fixed = !field.required && field.default_note.empty();
  const Value standard = field.get(TrainConfig{});
  if (!fixed) return json;
  if (!std::holds_alternative<std::monostate>(standard))
    json["default"] = std::visit(ToJson{}, standard);
  else if (!field.off_word.empty())
    json["default"] = field.off_word;
  return json;
}

Json group(std::string_view meaning) {
  Json json = {{"type", "object"}, {"additionalProperties", false}};
  if (!meaning.empty()) json["description"] = meaning;
  json["properties"] = Json::object();
  return json;
}

void require(Json& object, std::string_view name) {
  Json& names = object["required"];
  for (const auto& known : names) {
    if (known == name) return;
  }
  names.push_back(name);
}

}  // namespace

std::string schema_json(const Schema& schema) {
  Json root = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "Lomu training job"}};
  root.update(group(""));
  const auto at = [&root](std::string_view path) -> Json& {
    Json* json = &root;
    while (true) {
      const auto dot = path.find('.');
      json = &(*json)["properties"][std::string(path.substr(0, dot))];
      if (dot == std::string_view::npos) return *json;
      path.remove_prefix(dot + 1);
    }
  };
  for (const SectionInfo& section : schema.sections()) at(section.path) = group(section.meaning);
  for (const Field& field : schema.fields()) {
    at(field.path) = property(field);
    if (!field.required) continue;
    require(at(field.section()), field.name());
    require(root, field.section());
  }
  for (const ItemList& list : schema.lists()) {
    Json item = group(list.schema->sections().front().meaning);
    for (const Field& field : list.schema->fields()) {
      item["properties"][std::string(field.name())] = property(field);
      if (field.required) require(item, field.name());
    }
    at(list.path) = {{"type", "array"}, {"items", item}, {"minItems", 1}, {"description", list.meaning}};
  }
  return root.dump(2) + "\n";
}

}  // namespace lomu::config

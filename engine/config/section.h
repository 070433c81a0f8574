// Writes rows of the key table from struct members: `adapter.key("rank", &AdapterConfig::rank, "...")` finds the type,
// and the reader and writer of the member, from the member itself. Used by the files of rows alone: train_schema.cpp
// and optimizer_schema.cpp.
#pragma once

#include <concepts>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/config/schema.h"

namespace lomu::config {

template <class T>
inline constexpr bool kIsOptional = false;
template <class T>
inline constexpr bool kIsOptional<std::optional<T>> = true;

template <class T>
constexpr Type type_of() {
  if constexpr (kIsOptional<T>)
    return type_of<typename T::value_type>();
  else if constexpr (std::same_as<T, bool>)
    return Type::kBoolean;
  else if constexpr (std::integral<T>)
    return Type::kInteger;
  else if constexpr (std::floating_point<T>)
    return Type::kNumber;
  else if constexpr (std::same_as<T, std::filesystem::path>)
    return Type::kPath;
  else if constexpr (std::same_as<T, std::vector<std::filesystem::path>>)
    return Type::kPathList;
  else if constexpr (std::same_as<T, std::vector<std::string>>)
    return Type::kTextList;
  else
    return Type::kText;
}

template <class T>
Value to_value(const T& member) {
  if constexpr (kIsOptional<T>) {
    return member ? to_value(*member) : Value{};
  } else if constexpr (std::same_as<T, bool>) {
    return member;
  } else if constexpr (std::integral<T>) {
    return static_cast<std::int64_t>(member);
  } else if constexpr (std::same_as<T, std::filesystem::path>) {
    return member.empty() ? Value{} : Value{member.string()};
  } else if constexpr (std::same_as<T, std::vector<std::filesystem::path>>) {
    std::vector<std::string> list;
    for (const auto& path : member) list.push_back(path.string());
    return list.empty() ? Value{} : Value{std::move(list)};
  } else {
    return member;
  }
}

template <class T>
void from_value(const Value& value, T& member) {
  if constexpr (kIsOptional<T>) {
    if (std::holds_alternative<std::monostate>(value)) return member.reset();
    from_value(value, member.emplace());
  } else if constexpr (std::same_as<T, bool>) {
    member = std::get<bool>(value);
  } else if constexpr (std::integral<T>) {
    member = static_cast<T>(std::get<std::int64_t>(value));
  } else if constexpr (std::same_as<T, std::filesystem::path>) {
    member = std::holds_alternative<std::monostate>(value) ? T{} : T{std::get<std::string>(value)};
  } else if constexpr (std::same_as<T, std::vector<std::filesystem::path>>) {
    const auto& list = std::get<std::vector<std::string>>(value);
    member.assign(list.begin(), list.end());
  } else {
    member = std::get<T>(value);
  }
}

/// The rest of a row, in words that read like the documentation.
class Row {
 public:
  explicit Row(Field& field) : field_(field) {}

  Row& range(double low, double high) { return limit({low, high, false, false}); }
  Row& above(double low) { return limit({low, std::numeric_limits<double>::infinity(), true, false}); }
  Row& above(double low, double up_to) { return limit({low, up_to, true, false}); }
  Row& from_below(double low, double high) { return limit({low, high, false, true}); }
  Row& unit(std::string unit) { return set(&Field::unit, std::move(unit)); }
  Row& required() { return set(&Field::required, true); }
  Row& optional() { return set(&Field::optional, true); }
  Row& or_off(std::string word = "off") { return set(&Field::off_word, std::move(word)); }
  Row& excludes(std::string key) { return set(&Field::excludes, std::move(key)); }
  Row& when(std::string key, std::string value) { return when(std::move(key), std::vector{std::move(value)}); }
  Row& when(std::string key, std::vector<std::string> values) {
    return set(&Field::when_key, std::move(key)).set(&Field::when_values, std::move(values));
  }
  Row& chosen_for(std::vector<std::string> keys) { return set(&Field::chosen_for, std::move(keys)); }
  Row& default_from(std::string note, std::function<Value(const TrainConfig&)> derive) {
    return set(&Field::default_note, std::move(note)).set(&Field::derive, std::move(derive));
  }

 private:
  Row& limit(Range range) { return set(&Field::range, range); }
  template <class T>
  Row& set(T Field::*member, T value) {
    field_.*member = std::move(value);
    return *this;
  }
  Field& field_;
};

/// One word of a choice and the value it stands for.
template <class E>
struct Word {
  std::string name;
  E value;
  std::string meaning;
};

/// A group of keys. `project` takes a TrainConfig (const or not) to the struct that holds them.
template <class Project>
class Section {
 public:
  Section(std::vector<SectionInfo>& sections, std::vector<Field>& fields, std::string path, std::string meaning,
          Project project)
      : fields_(fields), path_(std::move(path)), project_(project) {
    sections.push_back({path_, std::move(meaning)});
  }

  template <class S, class T>
  Row key(const std::string& name, T S::*member, std::string meaning) {
    return row(
        name, type_of<T>(), std::move(meaning),
        [project = project_, member](const TrainConfig& config) { return to_value(project(config).*member); },
        [project = project_, member](TrainConfig& config, const Value& value) {
          from_value(value, project(config).*member);
        });
  }

  /// A choice: the words a user may write for the values of an enumeration.
  template <class S, class E>
  requires std::is_enum_v<E> Row key(const std::string& name, E S::*member, std::vector<Word<E>> words,
                                     std::string meaning) {
    std::vector<Choice> choices;
    for (const auto& word : words) choices.push_back({word.name, word.meaning});
    Row made = row(
        name, Type::kChoice, std::move(meaning),
        [project = project_, member, words](const TrainConfig& config) -> Value {
          for (const auto& word : words) {
            if (word.value == project(config).*member) return word.name;
          }
          return {};
        },
        [project = project_, member, words](TrainConfig& config, const Value& value) {
          for (const auto& word : words) {
            if (word.name == std::get<std::string>(value)) project(config).*member = word.value;
          }
        });
    fields_.back().choices = std::move(choices);
    return made;
  }

  /// A key with its own reader and writer; both get the section's struct.
  template <class Get, class Set>
  Row key(const std::string& name, Type type, Get get, Set set, std::string meaning) {
    return row(
        name, type, std::move(meaning),
        [project = project_, get](const TrainConfig& config) { return get(project(config)); },
        [project = project_, set](TrainConfig& config, const Value& value) { set(project(config), value); });
  }

 private:
  Row row(const std::string& name, Type type, std::string meaning, std::function<Value(const TrainConfig&)> get,
          std::function<void(TrainConfig&, const Value&)> set) {
    Field field;
    field.path = path_ + "." + name;
    field.type = type;
    field.meaning = std::move(meaning);
    field.get = std::move(get);
    field.set = std::move(set);
    fields_.push_back(std::move(field));
    return Row(fields_.back());
  }

  std::vector<Field>& fields_;
  std::string path_;
  Project project_;
};

/// The whole table while it is written.
class Table {
 public:
  template <class Project>
  Section<Project> section(std::string path, std::string meaning, Project project) {
    return {sections_, fields_, std::move(path), std::move(meaning), project};
  }
  /// Adds the list: `own` holds the rows of an item's own keys; to its table come copies of the rows of `list.like`,
  /// which must be complete.
  void list(ItemList list, Table own) {
    list.own_fields = own.fields_.size();
    const auto renamed = [&list](const std::string& path) {
      return path.starts_with(list.like + ".") ? list.path + path.substr(list.like.size()) : path;
    };
    for (Field field : fields_) {
      if (field.section() != list.like || field.name() == list.but) continue;
      for (std::string* path : {&field.path, &field.excludes, &field.when_key}) *path = renamed(*path);
      for (std::string& path : field.chosen_for) path = renamed(path);
      // What an own key excludes, excludes it.
      for (const Field& other : own.fields_) {
        if (other.excludes == field.path) field.excludes = other.path;
      }
      own.fields_.push_back(std::move(field));
    }
    list.schema = std::make_shared<const Schema>(std::move(own).build());
    lists_.push_back(std::move(list));
  }
  Schema build() && { return {std::move(sections_), std::move(fields_), std::move(lists_)}; }

 private:
  std::vector<ItemList> lists_;
  std::vector<SectionInfo> sections_;
  std::vector<Field> fields_;
};

}  // namespace lomu::config

// The key table: what a key is called, what it may hold, what it means, and how it reaches its struct member.
// One table serves the parser, the checks, `lomu schema`, the JSON Schema, the resolved file and the documentation, so
// they cannot disagree. Here is the form of the table; train_schema.cpp holds its rows.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/config/train_config.h"
#include "engine/config/value.h"

namespace lomu::config {

enum class Type { kBoolean, kInteger, kNumber, kText, kPath, kChoice, kTextList, kPathList };

/// Limits of an integer or number, both included unless marked open.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;
};

/// One allowed word of a choice.
struct Choice {
  std::string name;
  std::string meaning;
};

/// A key. Filled by Section (section.h).
struct Field {
  std::string path;  ///< "training.schedule.name"
  Type type = Type::kText;
  std::string meaning;  ///< one line, lower case, no full stop
  std::string unit;
  Range range;
  std::vector<Choice> choices;

  bool required = false;
  bool optional = false;  ///< may stay without a value
  std::string off_word;   ///< the word that switches a number off; empty: there is none
  std::string excludes;   ///< the key that cannot be given together with this one
  std::string when_key;   ///< the key has an effect only if that key has one of the values `when_values`
  std::vector<std::string> when_values;
  std::vector<std::string> chosen_for;  ///< a value of this key is meant for one value of each of those keys only
  std::string default_note;  ///< set where the default follows from other keys: says how, and `derive` computes it
  std::function<Value(const TrainConfig&)> derive;

  std::function<Value(const TrainConfig&)> get;
  std::function<void(TrainConfig&, const Value&)> set;  ///< BadValue if the value cannot be taken

  [[nodiscard]] std::string when_text() const;     ///< "optimizer.name: lora_muon, muon or spectron"
  [[nodiscard]] std::string_view section() const;  ///< "training.schedule"
  [[nodiscard]] std::string_view name() const;     ///< "name"
};

/// A group of keys, in the order of the file.
struct SectionInfo {
  std::string path;
  std::string meaning;
};

class Schema;

/// A key whose value is a list of groups of keys. An item has a table of keys of its own, which reads and writes a job
/// of its own: one in which the values of the item stand where the job has those it replaces.
struct ItemList {
  std::string path;     ///< "optimizer.groups"
  std::string meaning;  ///< one line, lower case, no full stop
  std::string like;     ///< "optimizer": the section whose keys an item may have beside its own
  std::string but;      ///< key of that section that is the job's alone: "max_grad_norm"
  std::string kind;     ///< key of an item; defaults that follow from others are inherited if it is as in the job
  /// Sections: `path`. Fields: the item's own, then those like `like`'s, all under `path`.
  std::shared_ptr<const Schema> schema;
  std::size_t own_fields = 0;

  std::function<std::size_t(const TrainConfig&)> size;
  std::function<TrainConfig(const TrainConfig&)> blank;              ///< an item of which nothing is said yet
  std::function<TrainConfig(const TrainConfig&, std::size_t)> item;  ///< item number i
  std::function<void(TrainConfig&, const TrainConfig&)> append;      ///< of a job, an item that is complete
};

class Schema {
 public:
  Schema(std::vector<SectionInfo> sections, std::vector<Field> fields, std::vector<ItemList> lists = {});

  [[nodiscard]] const std::vector<SectionInfo>& sections() const { return sections_; }
  [[nodiscard]] const std::vector<Field>& fields() const { return fields_; }
  [[nodiscard]] const std::vector<ItemList>& lists() const { return lists_; }
  /// nullptr if there is no such list.
  [[nodiscard]] const ItemList* find_list(std::string_view path) const;
  /// nullptr if there is no such key.
  [[nodiscard]] const Field* find(std::string_view path) const;
  [[nodiscard]] bool is_section(std::string_view path) const;
  /// False if the key has no effect in this configuration (its `when` does not hold).
  [[nodiscard]] bool applies(const Field& field, const TrainConfig& config) const;

 private:
  std::vector<SectionInfo> sections_;
  std::vector<Field> fields_;
  std::vector<ItemList> lists_;
};

/// The table of a training job. Built once, never changed.
const Schema& train_schema();

/// Reads what was written into the field's type and checks its limits. BadValue, with the allowed values, if it cannot.
Value read_value(const Field& field, const Written& written);

/// "integer 1..256", "auto | cpu | cuda", "path or list of paths": what may be written.
std::string allowed_text(const Field& field);
/// The default as YAML, the note that says how it follows from other keys, "required", or "none".
std::string default_text(const Field& field);
/// The value of a key as it would be written: "lora_muon", "[q, v]", "off".
std::string value_text(const Field& field, const Value& value);
/// The same by path. std::out_of_range if there is no such key.
std::string value_text(const TrainConfig& config, std::string_view path);

}  // namespace lomu::config

#include "engine/config/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "engine/config/checks.h"
#include "engine/config/config_file.h"
#include "engine/config/entries.h"
#include "engine/config/schema.h"

namespace lomu::config {
namespace {

/// Turns entries into a configuration and collects everything that is wrong on the way.
class Resolve {
 public:
  Resolve(const Schema& schema, const std::string& name, std::vector<Problem> problems)
      : schema_(schema), name_(name), problems_(std::move(problems)) {}

  TrainConfig run(const std::vector<Entry>& entries) {
    choose(entries);
    for (const Entry* entry : chosen_) apply(*entry);
    require();
    for (const Entry* entry : chosen_) refuse_ineffective(*entry);
    for (const Entry* entry : chosen_) refuse_stale(*entry);
    for (const Field& field : schema_.fields()) {
      if (field.derive && given(field.path) == nullptr) field.set(config_, field.derive(config_));
    }
    check_rules();
    return config_;
  }

  /// Everything found, in the order of the file; what has no line comes last.
  [[nodiscard]] std::vector<Problem> problems() && {
    const auto order = [](const Problem& p) { return p.line == 0 ? std::numeric_limits<int>::max() : p.line; };
    std::ranges::stable_sort(problems_, {}, order);
    return std::move(problems_);
  }

 private:
  void problem(std::string what, const Entry* entry, std::string hint) {
    problems_.push_back({std::move(what), entry == nullptr ? name_ : entry->where, std::move(hint),
                         entry == nullptr ? 0 : entry->line});
  }

  static const Entry* last(const std::vector<Entry>& entries, std::string_view path, bool from_file_only = false) {
    const Entry* found = nullptr;
    for (const Entry& entry : entries) {
      if (entry.field->path == path && !(from_file_only && entry.from_command_line())) found = &entry;
    }
    return found;
  }

  /// The entry that gives `path` its value; nullptr if the default does.
  [[nodiscard]] const Entry* given(std::string_view path) const {
    const auto it = std::ranges::find(chosen_, path, [](const Entry* e) { return std::string_view(e->field->path); });
    return it == chosen_.end() ? nullptr : *it;
  }

  /// The command line wins over the file, for a key itself and for the key that it excludes. Two keys that exclude each
  /// other from the same source are refused.
  void choose(const std::vector<Entry>& entries) {
    for (const Entry& entry : entries) {
      const Field& field = *entry.field;
      if (last(entries, field.path) != &entry) continue;
      const Entry* rival = field.excludes.empty() ? nullptr : last(entries, field.excludes);
      if (rival != nullptr && rival->from_command_line() && !entry.from_command_line()) continue;
      chosen_.push_back(&entry);
      if (rival == nullptr || rival->from_command_line() != entry.from_command_line() || rival > &entry) continue;
      problem(fmt::format("`{}` and `{}` exclude each other", rival->field->path, field.path), &entry,
              "keep one of them");
      bad_.insert({field.path, field.excludes});
    }
    for (const Entry* entry : chosen_) {
      if (entry->from_command_line()) replaced_[entry->field->path] = last(entries, entry->field->path, true);
    }
  }

  void apply(const Entry& entry) {
    try {
      if (entry.readable)
        entry.field->set(config_, read_value(*entry.field, entry.written));
      else
        bad_.insert(entry.field->path);
    } catch (const BadValue& bad) {
      bad_.insert(entry.field->path);
      problem(bad.what(), &entry, bad.hint());
    }
  }

  void require() {
    for (const Field& field : schema_.fields()) {
      if (!field.required || given(field.path) != nullptr) continue;
      bad_.insert(field.path);
      problem(fmt::format("`{}` is missing", field.path), nullptr,
              fmt::format("{}: {}", allowed_text(field), field.meaning));
    }
  }

  void refuse_ineffective(const Entry& entry) {
    const Field& field = *entry.field;
    if (schema_.applies(field, config_) || bad_.contains(field.when_key)) return;
    bad_.insert(field.path);
    problem(fmt::format("`{}` has an effect only with `{}`, which is {} here", field.path, field.when_text(),
                        value_text(config_, field.when_key)),
            &entry, "remove it");
  }

  /// A value of the file that was chosen for another value of a key which the command line has changed.
  void refuse_stale(const Entry& entry) {
    const Field& field = *entry.field;
    const auto changed = replaced_.find(field.chosen_for);
    if (changed == replaced_.end() || entry.from_command_line() || bad_.contains(field.chosen_for)) return;
    const Field& key = *schema_.find(field.chosen_for);
    const Entry* before = changed->second;
    const std::string was =
        before != nullptr && !before->written.items.empty() ? before->written.items.front().text : default_text(key);
    const std::string now = value_text(config_, key.path);
    if (was == now) return;
    problem(fmt::format("`{}` of the file was chosen for {}, and the command line asks for {}", field.path, was, now),
            &entry, fmt::format("give {}=... as well; the default is {}", field.path, default_text(field)));
  }

  void check_rules() {
    for (const Rule& rule : rules()) {
      const Entry* blamed = nullptr;
      bool readable = true;
      for (const std::string& key : rule.keys) {
        readable = readable && !bad_.contains(key);
        if (blamed == nullptr) blamed = given(key);
      }
      if (!readable) continue;
      if (const auto bad = rule.broken(config_)) problem(bad->what(), blamed, bad->hint());
    }
  }

  const Schema& schema_;
  const std::string& name_;
  std::vector<Problem> problems_;
  TrainConfig config_;
  std::vector<const Entry*> chosen_;              ///< one for each key that is given, in the order written
  std::map<std::string, const Entry*> replaced_;  ///< keys of the command line: the file's entry, or nullptr
  std::set<std::string> bad_;
};

}  // namespace

TrainConfig parse_config(std::string_view text, const std::string& name, std::span<const std::string> overrides) {
  const Schema& schema = train_schema();
  std::vector<Problem> problems;
  std::vector<Entry> entries = read_yaml(text, name, schema, problems);
  const bool readable = problems.empty() || !entries.empty();
  for (Entry& entry : read_overrides(overrides, schema, problems)) entries.push_back(std::move(entry));
  if (!readable) throw ConfigError(std::move(problems));
  Resolve resolve(schema, name, std::move(problems));
  TrainConfig config = resolve.run(entries);
  if (auto found = std::move(resolve).problems(); !found.empty()) throw ConfigError(std::move(found));
  return config;
}

TrainConfig load_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
  return parse_config(read_config_file(file), file.string(), overrides);
}

}  // namespace lomu::config

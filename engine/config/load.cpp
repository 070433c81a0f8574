#include "engine/config/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "engine/config/checks.h"
#include "engine/config/config_file.h"
#include "engine/config/entries.h"
#include "engine/config/schema.h"

namespace lomu::config {
namespace {

/// What has no line comes last.
void in_order_of_the_file(std::vector<Problem>& problems) {
  const auto order = [](const Problem& p) { return p.line == 0 ? std::numeric_limits<int>::max() : p.line; };
  std::ranges::stable_sort(problems, {}, order);
}

/// Turns entries into a configuration and collects everything that is wrong on the way.
class Resolve {
 public:
  Resolve(const Schema& schema, const std::string& name, std::vector<Problem> problems)
      : schema_(schema), name_(name), problems_(std::move(problems)) {}
  /// One item of a list of a job that has been resolved.
  Resolve(const Item& item, const Resolve& job)
      : schema_(*item.list->schema),
        name_(item.where),
        item_(&item),
        job_(&job),
        config_(item.list->blank(job.config_)) {}

  TrainConfig run(const std::vector<Entry>& entries) {
    const TrainConfig start = config_;
    choose(entries);
    for (const Entry* entry : chosen_) apply(*entry);
    require();
    for (const Entry* entry : chosen_) refuse_ineffective(*entry);
    for (const Entry* entry : chosen_) refuse_stale(*entry);
    for (const Field& field : schema_.fields()) {
      if (field.derive && given(field.path) == nullptr && !inherited(field, start)) {
        field.set(config_, field.derive(config_));
      }
    }
    check_rules();
    return config_;
  }

  [[nodiscard]] const std::vector<Problem>& problems() const { return problems_; }

 private:
  void problem(std::string what, const Entry* entry, std::string hint) {
    problems_.push_back({std::move(what), entry == nullptr ? name_ : entry->where, std::move(hint),
                         entry == nullptr ? (item_ == nullptr ? 0 : item_->line) : entry->line});
  }

  /// Whether an item takes from the job what follows from other keys: it is of the kind that the job names, and what
  /// the value was chosen for is as in the job.
  [[nodiscard]] bool inherited(const Field& field, const TrainConfig& start) const {
    if (item_ == nullptr) return false;
    const auto as_in_job = [&](const std::string& key) {
      const Field& of_key = *schema_.find(key);
      return of_key.get(start) == of_key.get(config_);
    };
    return as_in_job(item_->list->kind) && std::all_of(field.chosen_for.begin(), field.chosen_for.end(), as_in_job);
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

  [[nodiscard]] std::string text_of(const std::string& path) const {
    const Field& key = *schema_.find(path);
    return value_text(key, key.get(config_));
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
      if (!field.required || given(field.path) != nullptr || !schema_.applies(field, config_)) continue;
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
                        text_of(field.when_key)),
            &entry, "remove it");
  }

  /// What the command line has made of a key that the file sets.
  struct Change {
    std::string was, now;
  };
  [[nodiscard]] std::optional<Change> change_of(const std::string& path) const {
    const auto changed = replaced_.find(path);
    if (changed == replaced_.end() || bad_.contains(path)) return {};
    const Entry* before = changed->second;
    const std::string was = before != nullptr && !before->written.items.empty() ? before->written.items.front().text
                                                                                : default_text(*schema_.find(path));
    const std::string now = text_of(path);
    if (was == now) return {};
    return Change{was, now};
  }

  /// A value of the file that was chosen for another value of a key which the command line has changed; in an item that
  /// does not say that key itself, which it has changed in the job.
  void refuse_stale(const Entry& entry) {
    const Field& field = *entry.field;
    if (entry.from_command_line()) return;
    for (const std::string& key : field.chosen_for) {
      if (!schema_.applies(*schema_.find(key), config_)) continue;
      std::optional<Change> change = change_of(key);
      if (job_ != nullptr && given(key) == nullptr) {
        change = job_->change_of(item_->list->like + key.substr(item_->list->path.size()));
      }
      if (!change) continue;
      problem(fmt::format("`{}` of the file was chosen for {}, and the command line asks for {}", field.path,
                          change->was, change->now),
              &entry,
              fmt::format("give {}=... as well; its default is {} then", shown(field.path),
                          field.derive ? value_text(field, field.derive(config_)) : default_text(field)));
      return;
    }
  }

  [[nodiscard]] std::string shown(const std::string& path) const {
    if (item_ == nullptr) return path;
    return fmt::format("{}[{}]{}", item_->list->path, item_->index, path.substr(item_->list->path.size()));
  }

  /// The key of an item that stands for a key of the job; other keys stay.
  [[nodiscard]] std::string key_here(const std::string& key) const {
    if (item_ == nullptr || !key.starts_with(item_->list->like + ".")) return key;
    return item_->list->path + key.substr(item_->list->like.size());
  }

  /// An item is held against rules about keys that it gives; those about the rest are the job's.
  void check_rules() {
    for (const Rule& rule : rules()) {
      const Entry* blamed = nullptr;
      bool readable = true;
      for (const std::string& rule_key : rule.keys) {
        const std::string key = key_here(rule_key);
        readable = readable && !bad_.contains(key);
        if (blamed == nullptr) blamed = given(key);
      }
      if (!readable || (item_ != nullptr && blamed == nullptr)) continue;
      if (const auto bad = rule.broken(config_)) problem(bad->what(), blamed, bad->hint());
    }
  }

  const Schema& schema_;
  std::string name_;
  const Item* item_ = nullptr;
  const Resolve* job_ = nullptr;  ///< of an item
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
  Document document = read_yaml(text, name, schema, problems);
  const bool readable = problems.empty() || !document.entries.empty();
  read_overrides(overrides, schema, document, problems);
  if (!readable) throw ConfigError(std::move(problems));
  Resolve resolve(schema, name, std::move(problems));
  TrainConfig config = resolve.run(document.entries);
  std::vector<Problem> found = resolve.problems();
  for (const Item& item : document.items) {
    Resolve of_item(item, resolve);
    const TrainConfig complete = of_item.run(item.entries);
    const std::vector<Problem>& more = of_item.problems();
    if (more.empty()) item.list->append(config, complete);
    found.insert(found.end(), more.begin(), more.end());
  }
  in_order_of_the_file(found);
  if (!found.empty()) throw ConfigError(std::move(found));
  return config;
}

TrainConfig load_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
  return parse_config(read_config_file(file), file.string(), overrides);
}

}  // namespace lomu::config

#include "engine/config/entries.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <system_error>

#include "engine/config/unknown_key.h"

namespace lomu::config {
namespace {

constexpr std::string_view kQuotedTag = "!";
constexpr std::string_view kPlainTag = "?";
// More than a job has use for; keeps aliases from making a large document of a small one.
constexpr std::size_t kMostItems = 64;

/// Walks the two or three levels of sections of one document and collects its keys. Values below a key are looked at
/// one level deep at most, so that aliases cannot blow up.
class Walk {
 public:
  Walk(const std::string& file, const Schema& schema, std::vector<Problem>& problems)
      : file_(file), schema_(schema), problems_(problems) {}

  Document run(const YAML::Node& root) {
    section(root, "");
    return {std::move(entries_), std::move(items_)};
  }

  /// The keys of item number `index` of a list: `optimizer.groups.lr` is shown as optimizer.groups[index].lr.
  std::vector<Entry> run_item(const YAML::Node& map, const std::string& list, std::size_t index) {
    list_ = list;
    index_ = index;
    section(map, list);
    return std::move(entries_);
  }

 private:
  static int line_of(const YAML::Node& node) { return std::max(1, node.Mark().line + 1); }

  [[nodiscard]] std::string shown(std::string_view path) const {
    if (list_.empty() || !path.starts_with(list_)) return std::string(path);
    return fmt::format("{}[{}]{}", list_, index_, path.substr(list_.size()));
  }

  [[nodiscard]] std::string place(const YAML::Mark& mark, std::string_view path) const {
    if (mark.is_null()) return fmt::format("{} ({})", file_, shown(path));
    return fmt::format("{}:{} ({})", file_, mark.line + 1, shown(path));
  }

  void problem(const YAML::Node& node, std::string_view path, std::string what, std::string hint = {}) {
    problems_.push_back({std::move(what), place(node.Mark(), path), std::move(hint), line_of(node)});
  }

  void section(const YAML::Node& map, const std::string& prefix) {
    std::map<std::string, int> lines;
    for (const auto& item : map) {
      const YAML::Node& key = item.first;
      if (!key.IsScalar()) {
        problem(key, prefix.empty() ? "top level" : prefix, "a key is not a word");
        continue;
      }
      const std::string path = prefix.empty() ? key.Scalar() : prefix + "." + key.Scalar();
      const auto [first, fresh] = lines.try_emplace(path, key.Mark().line + 1);
      if (fresh) {
        entry(key, item.second, path);
      } else {
        problem(key, path, "the key is given twice", fmt::format("it is first given in line {}", first->second));
      }
    }
  }

  void entry(const YAML::Node& key, const YAML::Node& value, const std::string& path) {
    if (schema_.is_section(path)) return subsection(key, value, path);
    if (const ItemList* list = schema_.find_list(path)) return items(key, value, *list);
    const Field* field = schema_.find(path);
    if (field == nullptr) return unknown(key, path);
    if (key.Scalar().find('.') != std::string::npos) {
      return problem(key, path, "a dotted key is for the command line only",
                     fmt::format("in a file write `{}:` below `{}:`", field->name(), field->section()));
    }
    auto written = read(key, value, *field);
    const bool readable = written.has_value();
    entries_.push_back(
        {field, readable ? std::move(*written) : Written{}, place(key.Mark(), path), line_of(key), readable});
  }

  void subsection(const YAML::Node& key, const YAML::Node& value, const std::string& path) {
    if (value.IsMap()) return section(value, path);
    if (value.IsNull()) {
      return problem(key, path, "the section is empty",
                     "give keys below it, indented, or remove it: its defaults hold");
    }
    problem(key, path, "a group of keys is expected here, not a value",
            fmt::format("write its keys on lines of their own below `{}:`, as {}", path, first_key(path)));
  }

  void items(const YAML::Node& key, const YAML::Node& value, const ItemList& list) {
    const std::string hint = fmt::format("as `- {{{}: ..., ...}}`, one for each", list.schema->fields()[0].name());
    if (!value.IsSequence() || value.size() == 0) {
      return problem(key, list.path, "a list of groups of keys is expected here", hint);
    }
    if (value.size() > kMostItems) {
      return problem(key, list.path, fmt::format("{} groups are too many", value.size()),
                     fmt::format("at most {}", kMostItems));
    }
    for (std::size_t i = 0; i < value.size(); ++i) {
      const YAML::Node& node = value[i];
      const std::string path = fmt::format("{}[{}]", list.path, i);
      if (!node.IsMap()) {
        problem(node, path, "an item of the list is not a group of keys", hint);
        continue;
      }
      Walk walk(file_, *list.schema, problems_);
      items_.push_back({&list, i, place(node.Mark(), path), line_of(node), walk.run_item(node, list.path, i)});
    }
  }

  [[nodiscard]] std::string first_key(std::string_view section) const {
    const auto field = std::ranges::find(schema_.fields(), section, &Field::section);
    return field == schema_.fields().end() ? std::string("key: value") : fmt::format("`{}: ...`", field->name());
  }

  void unknown(const YAML::Node& key, const std::string& path) {
    const std::string& name = key.Scalar();
    if (name == "<<") {
      return problem(key, path, "merge keys (<<) are not supported", "write the keys out; anchors and aliases work");
    }
    problem(key, path, fmt::format("unknown key `{}`", shown(path)), unknown_key_hint(schema_, path));
  }

  std::optional<Written> read(const YAML::Node& key, const YAML::Node& value, const Field& field) {
    Written written;
    if (value.IsSequence()) {
      written.list = true;
      for (const YAML::Node& item : value) {
        auto scalar = read_scalar(item, item, field);
        if (!scalar) return {};
        written.items.push_back(std::move(*scalar));
      }
      return written;
    }
    if (value.IsMap()) {
      problem(key, field.path, fmt::format("a group of keys was given where {} is expected", allowed_text(field)));
      return {};
    }
    auto scalar = read_scalar(value, key, field);
    if (!scalar) return {};
    written.items.push_back(std::move(*scalar));
    return written;
  }

  std::optional<Scalar> read_scalar(const YAML::Node& value, const YAML::Node& at, const Field& field) {
    if (!value.IsScalar() && !value.IsNull()) {
      problem(at, field.path, fmt::format("a nested value was given where {} is expected", allowed_text(field)));
      return {};
    }
    const std::string& tag = value.Tag();
    if (!tag.empty() && tag != kQuotedTag && tag != kPlainTag) {
      problem(at, field.path, fmt::format("the YAML tag {} is not supported", tag), "write the value without a tag");
      return {};
    }
    if (value.IsNull()) return Scalar{};
    return Scalar{value.Scalar(), tag == kQuotedTag};
  }

  const std::string& file_;
  const Schema& schema_;
  std::vector<Problem>& problems_;
  std::vector<Entry> entries_;
  std::vector<Item> items_;
  std::string list_;  ///< inside an item: its list
  std::size_t index_ = 0;
};

std::string syntax_hint(std::string_view text, const YAML::Mark& mark) {
  int line = 0;
  std::string_view rest = text;
  while (!mark.is_null() && line < mark.line && rest.find('\n') != std::string_view::npos) {
    rest.remove_prefix(rest.find('\n') + 1);
    ++line;
  }
  const std::string_view shown = rest.substr(0, rest.find('\n'));
  const auto indent = shown.substr(0, shown.find_first_not_of(" \t"));
  if (indent.find('\t') != std::string_view::npos) return "indent with spaces: YAML does not allow tabs";
  return "a line is `key: value`; keys of a section are indented by the same number of spaces";
}

/// "[a, b]" of the command line, read as YAML; nothing if it is not a flat list.
std::optional<Written> read_list(const std::string& text) {
  try {
    const YAML::Node node = YAML::Load(text);
    if (!node.IsSequence()) return {};
    Written written{{}, true};
    for (const YAML::Node& item : node) {
      if (!item.IsScalar() && !item.IsNull()) return {};
      written.items.push_back(item.IsNull() ? Scalar{} : Scalar{item.Scalar(), item.Tag() == kQuotedTag});
    }
    return written;
  } catch (const YAML::Exception&) {
    return {};
  }
}

/// optimizer.groups[2].lr of the command line.
struct ItemPath {
  const ItemList* list;
  std::size_t index;
  std::string path;  ///< as in the list's table: optimizer.groups.lr
};

std::optional<ItemPath> item_path(const std::string& path, const Schema& schema) {
  const auto open = path.find('[');
  const auto close = path.find("].", open);
  if (open == std::string::npos || close == std::string::npos) return {};
  const ItemList* list = schema.find_list(std::string_view(path).substr(0, open));
  std::size_t index = 0;
  const char* end = path.data() + close;
  const auto [stop, error] = std::from_chars(path.data() + open + 1, end, index);
  if (list == nullptr || error != std::errc() || stop != end) return {};
  return ItemPath{list, index, list->path + path.substr(close + 1)};
}

}  // namespace

Document read_yaml(std::string_view text, const std::string& name, const Schema& schema,
                   std::vector<Problem>& problems) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.empty() || documents.front().IsNull()) {
      problems.push_back({"the configuration is empty", name, "start from a file of configs/, or see `lomu schema`"});
      return {};
    }
    if (documents.size() > 1) {
      problems.push_back(
          {"the file holds more than one YAML document", name, "one job, one file: remove the --- line"});
      return {};
    }
    if (!documents.front().IsMap()) {
      problems.push_back({"the file is not a group of keys", fmt::format("{}:1", name), "a line is `key: value`"});
      return {};
    }
    return Walk(name, schema, problems).run(documents.front());
  } catch (const YAML::Exception& error) {
    const std::string where =
        error.mark.is_null() ? name : fmt::format("{}:{}:{}", name, error.mark.line + 1, error.mark.column + 1);
    problems.push_back({fmt::format("not valid YAML: {}", error.msg), where, syntax_hint(text, error.mark)});
    return {};
  }
}

void read_overrides(std::span<const std::string> overrides, const Schema& schema, Document& document,
                    std::vector<Problem>& problems) {
  std::map<std::string, int> given;
  for (const std::string& text : overrides) {
    const std::string where = fmt::format("command line: {}", text);
    const auto refuse = [&](std::string what, std::string hint) {
      problems.push_back({std::move(what), where, std::move(hint)});
    };
    const auto equals = text.find('=');
    if (equals == std::string::npos) {
      refuse("an argument after the configuration file is not of the form key.path=value", "as in optimizer.lr=0.01");
      continue;
    }
    const std::string path = text.substr(0, equals);
    const std::string value = text.substr(equals + 1);
    const Field* field = schema.find(path);
    std::vector<Entry>* entries = &document.entries;
    if (field == nullptr) {
      if (const auto inside = item_path(path, schema)) {
        const auto item = std::ranges::find_if(
            document.items, [&](const Item& i) { return i.list == inside->list && i.index == inside->index; });
        field = inside->list->schema->find(inside->path);
        if (item == document.items.end()) {
          refuse(fmt::format("the file has no {}[{}]", inside->list->path, inside->index), "groups count from 0");
          continue;
        }
        if (field == nullptr) {
          refuse(fmt::format("unknown key `{}`", path), unknown_key_hint(*inside->list->schema, inside->path));
          continue;
        }
        entries = &item->entries;
      } else if (schema.find_list(path) != nullptr) {
        refuse(fmt::format("`{}` is a list of groups of keys", path),
               fmt::format("write it in the file; {}[0].KEY=... changes a key of its first item", path));
        continue;
      } else if (schema.is_section(path)) {
        refuse(fmt::format("`{}` is a group of keys", path), "set its keys one by one");
        continue;
      } else {
        refuse(fmt::format("unknown key `{}`", path), unknown_key_hint(schema, path));
        continue;
      }
    }
    if (!given.try_emplace(path, 0).second) {
      refuse(fmt::format("`{}` is given twice", path), "keep one of them");
      continue;
    }
    Entry entry{field, {{{value, false}}, false}, where};
    if (value.starts_with('[')) {
      auto list = read_list(value);
      if (!list) {
        refuse("the value is not a list as [a, b]", "quote it for the shell: 'data.train=[a.jsonl, b.jsonl]'");
        continue;
      }
      entry.written = std::move(*list);
    }
    entries->push_back(std::move(entry));
  }
}

}  // namespace lomu::config

#include "engine/config/entries.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <optional>

#include "engine/config/unknown_key.h"

namespace lomu::config {
namespace {

constexpr std::string_view kQuotedTag = "!";
constexpr std::string_view kPlainTag = "?";

/// Walks the two or three levels of sections of one document and collects its keys. Values below a key are looked at
/// one level deep at most, so that aliases cannot blow up.
class Walk {
 public:
  Walk(const std::string& file, const Schema& schema, std::vector<Problem>& problems)
      : file_(file), schema_(schema), problems_(problems) {}

  std::vector<Entry> run(const YAML::Node& root) {
    section(root, "");
    return std::move(entries_);
  }

 private:
  static int line_of(const YAML::Node& node) { return std::max(1, node.Mark().line + 1); }

  [[nodiscard]] std::string place(const YAML::Mark& mark, std::string_view path) const {
    if (mark.is_null()) return fmt::format("{} ({})", file_, path);
    return fmt::format("{}:{} ({})", file_, mark.line + 1, path);
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

  [[nodiscard]] std::string first_key(std::string_view section) const {
    const auto field = std::ranges::find(schema_.fields(), section, &Field::section);
    return field == schema_.fields().end() ? std::string("key: value") : fmt::format("`{}: ...`", field->name());
  }

  void unknown(const YAML::Node& key, const std::string& path) {
    const std::string& name = key.Scalar();
    if (name == "<<") {
      return problem(key, path, "merge keys (<<) are not supported", "write the keys out; anchors and aliases work");
    }
    problem(key, path, fmt::format("unknown key `{}`", path), unknown_key_hint(schema_, path));
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

}  // namespace

std::vector<Entry> read_yaml(std::string_view text, const std::string& name, const Schema& schema,
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

std::vector<Entry> read_overrides(std::span<const std::string> overrides, const Schema& schema,
                                  std::vector<Problem>& problems) {
  std::vector<Entry> entries;
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
    if (field == nullptr) {
      if (schema.is_section(path))
        refuse(fmt::format("`{}` is a group of keys", path), "set its keys one by one");
      else
        refuse(fmt::format("unknown key `{}`", path), unknown_key_hint(schema, path));
      continue;
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
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace lomu::config

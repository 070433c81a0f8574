#include "engine/config/schema_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <span>
#include <vector>

namespace lomu::config {
namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kNarrowestText = 30;

std::string meaning_of(const Field& field) {
  if (field.when_key.empty()) return field.meaning;
  return fmt::format("{}; only with {}", field.meaning, field.when_text());
}

std::string type_of(const Field& field) {
  return field.unit.empty() ? allowed_text(field) : fmt::format("{} {}", allowed_text(field), field.unit);
}

std::span<const Field> own_fields(const ItemList& list) {
  return std::span(list.schema->fields()).first(list.own_fields);
}

std::vector<ItemList> lists_of(const Schema& schema, const SectionInfo& section) {
  std::vector<ItemList> lists;
  std::ranges::copy_if(schema.lists(), std::back_inserter(lists),
                       [&](const ItemList& list) { return list.path.substr(0, list.path.rfind('.')) == section.path; });
  return lists;
}

/// What an item has beside its own keys.
std::string other_keys(const ItemList& list) {
  const std::string kind = list.kind.substr(list.kind.rfind('.') + 1);
  return fmt::format(
      "an item also has every key of {} but {}, and takes from there what it leaves out; with another {}, what goes by "
      "the {} has its default",
      list.like, list.but, kind, kind);
}

/// Two columns: the key, and beside it what it means, what it may be, and what its words mean.
class Printer {
 public:
  Printer(const Schema& schema, const Style& style, std::size_t width) : style_(style) {
    for (const Field& field : schema.fields()) make_room(field);
    for (const ItemList& list : schema.lists()) {
      for (const Field& field : own_fields(list)) make_room(field);
    }
    room_ = std::max(kNarrowestText, width > left_ ? width - left_ : 0);
  }

  [[nodiscard]] std::string row(const Field& field) const {
    std::string out = fmt::format("  {}{:{}}", style_.bold(field.name()), "", left_ - 2 - field.name().size());
    std::size_t indent = 0;  // the first line has the key before it
    for (const std::string& line : wrap(meaning_of(field), room_)) {
      out += fmt::format("{:{}}{}\n", "", indent, line);
      indent = left_;
    }
    const std::string standard = default_text(field);
    const std::string type = type_of(field) + ", ";
    const std::string kind = field.required ? "" : "default ";
    if (type.size() + kind.size() + standard.size() <= room_) {
      out += fmt::format("{:{}}{}{}{}\n", "", left_, style_.cyan(type), style_.dim(kind),
                         field.required ? style_.yellow(standard) : standard);
    } else {
      for (const std::string& line : wrap(type, room_)) out += fmt::format("{:{}}{}\n", "", left_, style_.cyan(line));
      for (const std::string& line : wrap(kind + standard, room_)) out += fmt::format("{:{}}{}\n", "", left_, line);
    }
    for (const Choice& choice : field.choices) out += explained(choice);
    return out;
  }

 private:
  void make_room(const Field& field) { left_ = std::max(left_, 2 + field.name().size() + kGap); }

  [[nodiscard]] std::string explained(const Choice& choice) const {
    if (choice.meaning.empty()) return {};
    std::string out;
    for (const std::string& line : wrap(fmt::format("{}: {}", choice.name, choice.meaning), room_ - kGap)) {
      out += fmt::format("{:{}}{}\n", "", left_ + kGap, style_.dim(line));
    }
    return out;
  }

  Style style_;
  std::size_t left_ = 0;
  std::size_t room_ = 0;
};

/// | would end a cell.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

std::string schema_text(const Schema& schema, const Style& style, std::size_t width) {
  const Printer printer(schema, style, width);
  std::string out;
  const auto title = [&](const std::string& path, const std::string& meaning) {
    if (!out.empty()) out += '\n';
    std::size_t indent = 0;  // the first line has the section before it
    for (const std::string& line : wrap(fmt::format("{}: {}", path, meaning), width - kGap)) {
      const auto name = indent == 0 ? path.size() + 1 : 0;
      out +=
          fmt::format("{:{}}{}{}\n", "", indent, name == 0 ? "" : style.green(line.substr(0, name)), line.substr(name));
      indent = kGap;
    }
  };
  for (const SectionInfo& section : schema.sections()) {
    title(section.path, section.meaning);
    for (const Field& field : schema.fields()) {
      if (field.section() == section.path) out += printer.row(field);
    }
    for (const ItemList& list : lists_of(schema, section)) {
      title(list.path, fmt::format("a list: {}; {}", list.meaning, other_keys(list)));
      for (const Field& field : own_fields(list)) out += printer.row(field);
    }
  }
  return out;
}

std::string schema_markdown(const Schema& schema) {
  std::string out;
  const auto table = [&](const auto& fields) {
    out += "| key | may be | default | meaning |\n|---|---|---|---|\n";
    for (const Field& field : fields) {
      std::string meaning = meaning_of(field);
      for (const Choice& choice : field.choices) {
        if (!choice.meaning.empty()) meaning += fmt::format("<br>`{}`: {}", choice.name, choice.meaning);
      }
      out += fmt::format("| `{}` | {} | {} | {} |\n", field.name(), escaped(type_of(field)),
                         escaped(default_text(field)), escaped(meaning));
    }
    out += '\n';
  };
  for (const SectionInfo& section : schema.sections()) {
    out += fmt::format("### {}\n\n{}.\n\n", section.path, section.meaning);
    std::vector<Field> fields;
    std::ranges::copy_if(schema.fields(), std::back_inserter(fields),
                         [&](const Field& field) { return field.section() == section.path; });
    table(fields);
    for (const ItemList& list : lists_of(schema, section)) {
      out += fmt::format("### {}\n\na list: {}; {}.\n\n", list.path, list.meaning, other_keys(list));
      table(own_fields(list));
    }
  }
  return out;
}

}  // namespace lomu::config

#include "engine/config/resolved.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/config/schema.h"

namespace lomu::config {
namespace {

constexpr std::size_t kCommentColumn = 44;

std::string line_of(const Field& field, const Value& value, std::size_t indent) {
  std::string line = fmt::format("{:{}}{}: {}", "", indent, field.name(), value_text(field, value));
  const std::string unit = field.unit.empty() ? "" : fmt::format(" ({})", field.unit);
  line.append(line.size() < kCommentColumn ? kCommentColumn - line.size() : 2, ' ');
  return line + fmt::format("# {}{}\n", field.meaning, unit);
}

/// Whether a key is written: it has an effect, and a value.
bool written(const Schema& schema, const Field& field, const TrainConfig& config) {
  if (!schema.applies(field, config)) return false;
  return !std::holds_alternative<std::monostate>(field.get(config)) || !field.off_word.empty();
}

std::string items_of(const ItemList& list, const TrainConfig& config, std::size_t indent) {
  const std::size_t count = list.size(config);
  if (count == 0) return {};
  const std::string name = list.path.substr(list.path.rfind('.') + 1);
  std::string text = fmt::format("{:{}}{}:  # {}\n", "", indent, name, list.meaning);
  for (std::size_t i = 0; i < count; ++i) {
    const TrainConfig item = list.item(config, i);
    bool first = true;
    for (const Field& field : list.schema->fields()) {
      if (!written(*list.schema, field, item)) continue;
      std::string line = line_of(field, field.get(item), indent + 4);
      if (first) line[indent + 2] = '-';
      first = false;
      text += line;
    }
  }
  return text;
}

}  // namespace

std::string resolved_yaml(const TrainConfig& config) {
  const Schema& schema = train_schema();
  std::string text =
      "# The resolved configuration of a run, defaults included: `lomu train` on this file repeats it.\n";
  for (const SectionInfo& section : schema.sections()) {
    const auto depth = static_cast<std::size_t>(std::ranges::count(section.path, '.'));
    const std::string name = section.path.substr(section.path.rfind('.') + 1);
    std::string lines;
    for (const Field& field : schema.fields()) {
      if (field.section() != section.path || !written(schema, field, config)) continue;
      lines += line_of(field, field.get(config), 2 * (depth + 1));
    }
    for (const ItemList& list : schema.lists()) {
      if (list.path.substr(0, list.path.rfind('.')) == section.path) lines += items_of(list, config, 2 * (depth + 1));
    }
    if (lines.empty()) continue;  // nothing of it applies
    text += fmt::format("{}{:{}}{}:  # {}\n", depth == 0 ? "\n" : "", "", 2 * depth, name, section.meaning) + lines;
  }
  return text;
}

}  // namespace lomu::config

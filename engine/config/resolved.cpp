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

}  // namespace

std::string resolved_yaml(const TrainConfig& config) {
  const Schema& schema = train_schema();
  std::string text =
      "# The resolved configuration of a run, defaults included: `lomu train` on this file repeats it.\n";
  for (const SectionInfo& section : schema.sections()) {
    const auto depth = static_cast<std::size_t>(std::ranges::count(section.path, '.'));
    const std::string name = section.path.substr(section.path.rfind('.') + 1);
    text += fmt::format("{}{:{}}{}:  # {}\n", depth == 0 ? "\n" : "", "", 2 * depth, name, section.meaning);
    for (const Field& field : schema.fields()) {
      if (field.section() != section.path || !schema.applies(field, config)) continue;
      const Value value = field.get(config);
      const bool unset = std::holds_alternative<std::monostate>(value) && field.off_word.empty();
      if (!unset) text += line_of(field, value, 2 * (depth + 1));
    }
  }
  return text;
}

}  // namespace lomu::config

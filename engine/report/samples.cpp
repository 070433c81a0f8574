#include "engine/report/samples.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/page/html.h"

namespace lomu {
namespace {

std::string table_of(std::span<const Sample> samples) {
  const bool before = std::any_of(samples.begin(), samples.end(), [](const Sample& s) { return s.before.has_value(); });
  const bool after = std::any_of(samples.begin(), samples.end(), [](const Sample& s) { return s.after.has_value(); });
  std::vector<std::string> head = {"prompt", "wanted"};
  if (before) head.emplace_back("before");
  if (after) head.emplace_back("after");
  std::vector<std::vector<std::string>> rows;
  for (const Sample& sample : samples) {
    std::vector<std::string>& row = rows.emplace_back(std::vector{sample.prompt, sample.wanted});
    if (before) row.push_back(sample.before.value_or(""));
    if (after) row.push_back(sample.after.value_or(""));
  }
  return text_table(head, rows);
}

std::string paragraph(const std::string& text) {
  return fmt::format("<p>{}</p>\n", escaped(text));
}

}  // namespace

std::string samples_section(std::span<const RunSamples> runs, std::span<const std::string> names) {
  std::string html;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunSamples& run = runs[i];
    html += fmt::format("<h3>{}</h3>\n", escaped(names[i]));
    if (!run.source.empty()) html += paragraph(run.source);
    for (const std::string& note : run.notes) html += paragraph(note);
    for (const MissingSample& missing : run.missing) {
      html +=
          paragraph(missing.where.empty() ? missing.what + "." : fmt::format("{} ({}).", missing.what, missing.where));
    }
    if (!run.samples.empty()) html += table_of(run.samples);
  }
  return html;
}

}  // namespace lomu

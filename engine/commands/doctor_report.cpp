#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/commands/doctor_findings.h"

namespace lomu {
namespace {

constexpr std::size_t kVerdictWidth = 7;

std::string painted(Verdict verdict, const Style& style) {
  const std::string word = fmt::format("{:<{}}", name_of(verdict), kVerdictWidth);
  switch (verdict) {
    case Verdict::kOk: return style.green(word);
    case Verdict::kMissing: return style.dim(word);
    case Verdict::kWarning: return style.yellow(word);
    case Verdict::kBroken: return style.red(word);
  }
  return word;
}

std::size_t count_of(const std::vector<Section>& sections, Verdict verdict) {
  std::size_t count = 0;
  for (const Section& section : sections) {
    count += static_cast<std::size_t>(std::count_if(section.findings.begin(), section.findings.end(),
                                                    [&](const Finding& f) { return f.verdict == verdict; }));
  }
  return count;
}

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk: return "ok";
    case Verdict::kMissing: return "missing";
    case Verdict::kWarning: return "warning";
    case Verdict::kBroken: return "broken";
  }
  return "";
}

bool is_well(const std::vector<Section>& sections) {
  return count_of(sections, Verdict::kBroken) == 0;
}

std::string doctor_text(const std::vector<Section>& sections, const Style& style) {
  std::size_t width = 0;
  for (const Section& section : sections) {
    for (const Finding& finding : section.findings) width = std::max(width, display_width(finding.name));
  }
  std::string text;
  for (const Section& section : sections) {
    if (section.findings.empty()) continue;
    text += style.bold(section.name) + "\n";
    for (const Finding& finding : section.findings) {
      const std::string padding(width - display_width(finding.name), ' ');
      text += fmt::format("  {}  {}{}  {}\n", painted(finding.verdict, style), finding.name, padding, finding.value);
      if (finding.advice.empty()) continue;
      text += fmt::format("  {:{}}  {}\n", "", kVerdictWidth + 2 + width, style.dim("-> " + finding.advice));
    }
  }
  const std::size_t broken = count_of(sections, Verdict::kBroken);
  const std::size_t warnings = count_of(sections, Verdict::kWarning);
  const std::string rest = warnings == 0 ? "" : fmt::format(", {} warning{}", warnings, warnings == 1 ? "" : "s");
  return text + (broken == 0 ? style.green("nothing is broken") : style.red(fmt::format("{} broken", broken))) + rest +
         "\n";
}

std::string doctor_json(const std::vector<Section>& sections) {
  nlohmann::ordered_json document;
  document["ok"] = is_well(sections);
  for (const Section& section : sections) {
    nlohmann::ordered_json& object = document[section.name] = nlohmann::ordered_json::object();
    for (const Finding& finding : section.findings) {
      nlohmann::ordered_json& entry = object[finding.name];
      entry["status"] = name_of(finding.verdict);
      entry["value"] = finding.value;
      if (finding.number) entry["number"] = *finding.number;
      if (!finding.advice.empty()) entry["advice"] = finding.advice;
    }
  }
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace lomu

#include "engine/study/study_spectra.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "engine/page/heat_map.h"
#include "engine/page/html.h"
#include "engine/study/findings.h"

namespace lomu {
namespace {

/// The runs of one variant, line and x.
struct Group {
  std::string variant;
  std::string line;
  std::string x;
  std::vector<const StudyRecord*> runs;

  [[nodiscard]] std::vector<std::int64_t> steps() const {
    std::set<std::int64_t> all;
    for (const StudyRecord* run : runs) {
      for (const LayerFigures& s : run->telemetry) all.insert(s.step);
    }
    return {all.begin(), all.end()};
  }
  [[nodiscard]] std::vector<int> layers() const {
    std::set<int> all;
    for (const StudyRecord* run : runs) {
      for (const LayerFigures& s : run->telemetry) all.insert(s.layer);
    }
    return {all.begin(), all.end()};
  }
  /// Median over repeats, and over layers where none is named; nothing where no run has the figure there.
  [[nodiscard]] std::optional<double> at(const char* figure, std::int64_t step, std::optional<int> layer = {}) const {
    std::vector<double> values;
    for (const StudyRecord* run : runs) {
      for (const LayerFigures& s : run->telemetry) {
        if (s.step != step || (layer && s.layer != *layer)) continue;
        if (const auto found = s.figures.find(figure); found != s.figures.end()) values.push_back(found->second);
      }
    }
    return values.empty() ? std::nullopt : std::optional(median_of(std::move(values)));
  }
};

/// In the order of the study's curves; groups without telemetry are left out.
std::vector<Group> groups_of(const Study& study, std::span<const StudyRecord> records) {
  std::vector<Group> groups;
  for (const StudyCurve& curve : curves_of(study, records)) {
    for (const StudyPoint& point : curve.points) {
      Group group{curve.variant, curve.line, point.x, {}};
      for (const StudyRecord& r : records) {
        const bool here = r.variant == group.variant && r.place(study.x) == group.x &&
                          (study.lines.empty() || r.place(study.lines) == group.line);
        if (here && !r.telemetry.empty()) group.runs.push_back(&r);
      }
      if (!group.runs.empty()) groups.push_back(std::move(group));
    }
  }
  return groups;
}

std::string name_of(const Study& study, const Group& group) {
  std::string name = group.variant;
  if (!group.line.empty()) name += fmt::format(", {} {}", short_name(study.lines), group.line);
  return fmt::format("{}, {} {}", name, short_name(study.x), group.x);
}

std::string shown(std::optional<double> value) {
  return value ? fmt::format("{:.3g}", *value) : "-";
}

std::string percent(std::optional<double> share) {
  return share ? fmt::format("{:.3g} %", 100 * *share) : "-";
}

std::string sentence_of(const Study& study, const Group& group) {
  const auto steps = group.steps();
  const auto quantiles = [&](std::int64_t step) {
    return fmt::format("{} / {} / {}", shown(group.at("momentum_left_smallest", step)),
                       shown(group.at("momentum_left_median", step)), shown(group.at("momentum_left_largest", step)));
  };
  double most = 0, sum = 0;
  std::size_t looks = 0;
  for (const std::int64_t step : steps) {
    for (const int layer : group.layers()) {
      for (const char* figure : {"missed_left", "missed_right"}) {
        const auto share = group.at(figure, step, layer);
        if (!share) continue;
        most = std::max(most, *share);
        sum += *share;
        ++looks;
      }
    }
  }
  const std::string missed =
      looks == 0 ? ""
                 : fmt::format(" Five Newton-Schulz steps miss {} of the directions on average, at most {} in a layer.",
                               percent(sum / static_cast<double>(looks)), percent(most));
  return fmt::format(
      "{}: smallest / median / largest singular value over the norm are {} at step {} and {} at step {}.{}",
      name_of(study, group), quantiles(steps.front()), steps.front(), quantiles(steps.back()), steps.back(), missed);
}

/// How the median singular value at the last look goes with x, for each variant and line.
std::vector<std::string> laws_of(const Study& study, std::span<const Group> groups) {
  std::vector<std::string> laws;
  for (std::size_t i = 0; i < groups.size();) {
    std::vector<std::string> x;
    std::vector<std::optional<double>> medians, largest;
    std::size_t end = i;
    for (; end < groups.size() && groups[end].variant == groups[i].variant && groups[end].line == groups[i].line;
         ++end) {
      const std::int64_t last = groups[end].steps().back();
      x.push_back(groups[end].x);
      medians.push_back(groups[end].at("momentum_left_median", last));
      largest.push_back(groups[end].at("momentum_left_largest", last));
    }
    const auto of_median = exponent_of(x, medians);
    const auto of_largest = exponent_of(x, largest);
    if (of_median && of_largest) {
      const std::string along = short_name(study.x);
      laws.push_back(
          fmt::format("{}: at the end the median goes about as {}^{:.2f}, the largest as {}^{:.2f}; a flat "
                      "spectrum of n values has n^-0.50.",
                      groups[i].variant, along, *of_median, along, *of_largest));
    }
    i = end;
  }
  return laws;
}

std::string table_of(const Study& study, std::span<const Group> groups, const std::string& side) {
  std::vector<std::vector<std::string>> rows;
  for (const Group& group : groups) {
    const auto steps = group.steps();
    for (const std::int64_t step : std::set{steps.front(), steps[steps.size() / 2], steps.back()}) {
      std::vector<std::string> row = {name_of(study, group), std::to_string(step)};
      for (const char* quantile : {"smallest", "q10", "median", "q90", "largest"}) {
        row.push_back(shown(group.at(fmt::format("momentum_{}_{}", side, quantile).c_str(), step)));
      }
      row.push_back(percent(group.at(fmt::format("missed_{}", side).c_str(), step)));
      if (row[2] != "-") rows.push_back(std::move(row));
    }
  }
  if (rows.empty()) return "";
  return html_table({"", "step", "smallest", "10 %", "median", "90 %", "largest", "missed"}, rows);
}

HeatMap map_of(const Group& group, const std::string& title, const char* figure, bool logarithmic) {
  HeatMap map{title, "step", "layer", {}, {}, {}, logarithmic};
  const auto steps = group.steps();
  for (const std::int64_t step : steps) map.columns.push_back(std::to_string(step));
  for (const int layer : group.layers()) {
    map.rows.push_back(std::to_string(layer));
    auto& row = map.values.emplace_back();
    for (const std::int64_t step : steps) {
      row.push_back(group.at(figure, step, layer).value_or(std::numeric_limits<double>::quiet_NaN()));
    }
  }
  return map;
}

}  // namespace

std::vector<std::string> spectra_sentences(const Study& study, std::span<const StudyRecord> records) {
  const std::vector<Group> groups = groups_of(study, records);
  if (groups.empty()) return {"No run has telemetry of momentum: set telemetry.every, and an optimizer that has it."};
  std::vector<std::string> sentences;
  for (const Group& group : groups) sentences.push_back(sentence_of(study, group));
  for (std::string& law : laws_of(study, groups)) sentences.push_back(std::move(law));
  return sentences;
}

std::string growth_section(const Study& study, std::span<const StudyRecord> records) {
  std::vector<std::vector<std::string>> rows;
  for (const Group& group : groups_of(study, records)) {
    const auto steps = group.steps();
    std::vector<std::string> row = {name_of(study, group)};
    for (const char* figure : {"norm_left", "norm_right", "product_largest"}) {
      for (const std::int64_t step : {steps.front(), steps.back()}) row.push_back(shown(group.at(figure, step)));
    }
    if (row[1] != "-") rows.push_back(std::move(row));
  }
  if (rows.empty()) return "";
  return "<h2>Growth of the factors</h2>\n<p>Medians over layers and repeats at the first and the last look.</p>\n" +
         html_table({"", "||P|| first", "last", "||Q|| first", "last", "||s P Q^T||_2 first", "last"}, rows);
}

std::string spectra_section(const Study& study, std::span<const StudyRecord> records) {
  const std::vector<Group> groups = groups_of(study, records);
  std::string html =
      "<p>Singular values of the momentum over its Frobenius norm, medians over repeats, and over layers in the "
      "tables. LoRA-Muon: of the momentum in the metric of the other factor. Missed: the share of directions that five "
      "Newton-Schulz steps leave short.</p>\n";
  html += "<h3>Left: P, or a dense matrix</h3>\n" + table_of(study, groups, "left");
  html += "<h3>Right: Q</h3>\n" + table_of(study, groups, "right");
  for (const Group& group : groups) {
    html += fmt::format("<h3>{}</h3>\n", escaped(name_of(study, group)));
    html += svg_of(map_of(group, "smallest singular value, left", "momentum_left_smallest", true));
    html += svg_of(map_of(group, "median singular value, left", "momentum_left_median", true));
    html += svg_of(map_of(group, "largest singular value, left", "momentum_left_largest", false));
    html += svg_of(map_of(group, "share that Newton-Schulz misses, left", "missed_left", false));
  }
  return html;
}

}  // namespace lomu

#include "engine/report/run_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <set>
#include <vector>

#include "engine/config/terminal.h"
#include "engine/page/html.h"
#include "engine/report/run_plots.h"

namespace lomu {
namespace {

using Rows = std::vector<std::vector<std::string>>;

/// The last folder of each run, or the whole path where two runs share one; the end of what is too long for a legend.
std::vector<std::string> names_of(std::span<const RunHistory> runs, bool short_enough) {
  constexpr std::size_t kLegend = 18;
  std::vector<std::string> names;
  const auto last = [](const RunHistory& run) {
    const auto folder = run.folder.lexically_normal();
    return (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  };
  for (const RunHistory& run : runs) {
    const auto same =
        std::count_if(runs.begin(), runs.end(), [&](const RunHistory& r) { return last(r) == last(run); });
    std::string name = same > 1 || last(run).empty() ? run.folder.string() : last(run);
    if (short_enough && name.size() > kLegend) name = ".." + name.substr(name.size() - kLegend);
    names.push_back(std::move(name));
  }
  return names;
}

std::string told(const RunHistory& run, const std::string& key) {
  const auto found = run.summary.find(key);
  if (found == run.summary.end()) return "-";
  const double value = std::strtod(found->second.c_str(), nullptr);
  if (key == "peak_bytes") return human_bytes(static_cast<std::uint64_t>(value));
  if (key == "seconds") return human_duration(value);
  if (key == "tokens") return human_count(value);
  if (key == "tokens_per_second") return fmt::format("{:.0f}", value);
  if (key == "optimizer_share") return fmt::format("{:.1f} %", 100 * value);
  if (key.find("loss") != std::string::npos || key.starts_with("validation")) return fmt::format("{:.4f}", value);
  return found->second;
}

std::string summary_table(std::span<const RunHistory> runs, std::span<const std::string> names) {
  constexpr std::array kLines = {std::pair{"first_loss", "first loss"},
                                 std::pair{"last_loss", "last loss"},
                                 std::pair{"validation_before", "validation loss before"},
                                 std::pair{"validation_after", "validation loss after"},
                                 std::pair{"tokens", "tokens"},
                                 std::pair{"seconds", "time"},
                                 std::pair{"tokens_per_second", "tokens a second, median"},
                                 std::pair{"optimizer_share", "optimizer's share of the time"},
                                 std::pair{"peak_bytes", "peak memory of a rank"},
                                 std::pair{"ranks", "ranks"},
                                 std::pair{"threads_per_rank", "threads of a rank"},
                                 std::pair{"compute", "computed by"},
                                 std::pair{"recompute", "recompute"}};
  std::vector<std::string> head = {""};
  head.insert(head.end(), names.begin(), names.end());
  Rows rows = {{"steps"}};
  for (const RunHistory& run : runs) {
    rows[0].push_back(fmt::format("{}{}", run.steps.back().step, run.summary.empty() ? " (not finished)" : ""));
  }
  for (const auto& [key, label] : kLines) {
    std::vector<std::string> row = {label};
    for (const RunHistory& run : runs) row.push_back(told(run, key));
    if (std::any_of(row.begin() + 1, row.end(), [](const std::string& cell) { return cell != "-"; })) {
      rows.push_back(std::move(row));
    }
  }
  return html_table(head, rows);
}

std::string differences(std::span<const RunHistory> runs, std::span<const std::string> names) {
  std::set<std::string> keys;
  for (const RunHistory& run : runs) {
    for (const auto& [key, value] : run.config) keys.insert(key);
  }
  Rows rows;
  for (const std::string& key : keys) {
    std::vector<std::string> row = {key};
    for (const RunHistory& run : runs) {
      const auto found = run.config.find(key);
      row.push_back(found == run.config.end() ? "-" : found->second);
    }
    if (std::any_of(row.begin() + 2, row.end(), [&](const std::string& cell) { return cell != row[1]; })) {
      rows.push_back(std::move(row));
    }
  }
  if (rows.empty()) return "<p>The configurations are the same.</p>\n";
  std::vector<std::string> head = {"key"};
  head.insert(head.end(), names.begin(), names.end());
  return html_table(head, rows);
}

std::string configuration_of(const RunHistory& run) {
  std::string text;
  for (const auto& [key, value] : run.config) text += fmt::format("{}: {}\n", key, value);
  return fmt::format("<pre>{}</pre>\n", escaped(text));
}

bool has_telemetry(const RunHistory& run) {
  return std::any_of(run.steps.begin(), run.steps.end(), [](const HistoryStep& s) { return !s.pairs.empty(); });
}

std::string telemetry_section(std::span<const RunHistory> runs, std::span<const std::string> names,
                              std::span<const std::string> legend) {
  if (std::none_of(runs.begin(), runs.end(), has_telemetry)) {
    return "<p>No run has telemetry: set <code>telemetry.every</code> for spectra by layer.</p>\n";
  }
  struct Picture {
    const char* figure;
    const char* title;
    bool logarithmic;
  };
  constexpr std::array<Picture, 7> kCurves = {
      {{"step_size", "||dW|| over eta", false},
       {"cross_term", "||s dP dQ^T|| over eta", false},
       {"product_largest", "largest singular value of s P Q^T", false},
       {"stable_rank", "stable rank of s P Q^T", false},
       {"relative_step_left", "relative step of P", false},
       {"relative_step_right", "relative step of Q", false},
       {"missed_left", "share of directions that Newton-Schulz misses", false}}};
  constexpr std::array<Picture, 8> kMaps = {
      {{"momentum_left_largest", "largest singular value of P's whitened momentum", false},
       {"momentum_left_median", "median singular value of P's whitened momentum", true},
       {"momentum_left_smallest", "smallest singular value of P's whitened momentum", true},
       {"momentum_right_median", "median singular value of Q's whitened momentum", true},
       {"momentum_right_smallest", "smallest singular value of Q's whitened momentum", true},
       {"product_largest", "largest singular value of s P Q^T", true},
       {"stable_rank", "stable rank of s P Q^T", false},
       {"condition_right", "condition of Q^T Q", true}}};
  std::string html = "<p>Lines are medians over the pairs, bands reach from their 10 % to their 90 % quantile.</p>\n";
  for (const Picture& p : kCurves) html += plot_of_figure(runs, legend, p.title, p.figure);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (!has_telemetry(runs[i])) continue;
    html += fmt::format("<h3>{}, by layer</h3>\n", escaped(names[i]));
    for (const Picture& p : kMaps) html += heat_map_of_figure(runs[i], p.title, p.figure, p.logarithmic);
  }
  return html;
}

}  // namespace

std::string page_of_runs(std::span<const RunHistory> runs, const std::string& provenance,
                         std::span<const RunSamples> samples) {
  const std::vector<std::string> names = names_of(runs, false);
  const std::vector<std::string> legend = names_of(runs, true);
  std::string html = page_beginning(runs.size() == 1 ? names.front() : fmt::format("{} runs", runs.size()));
  html += "\n<h2>Summary</h2>\n" + summary_table(runs, names);
  html += "<h2>Configuration</h2>\n";
  html += runs.size() == 1 ? configuration_of(runs.front()) : differences(runs, names);
  html += "<h2>Curves</h2>\n";
  constexpr std::array kCurves = {std::pair{"loss", "training loss"},
                                  std::pair{"validation_loss", "validation loss"},
                                  std::pair{"lr", "learning rate"},
                                  std::pair{"tokens_per_second", "tokens a second"},
                                  std::pair{"grad_norm", "norm of the gradient"},
                                  std::pair{"update_norm", "norm of the update"},
                                  std::pair{"max_relative_step", "largest relative step of a factor"}};
  for (const auto& [key, title] : kCurves) html += plot_of_metric(runs, legend, title, key);
  html +=
      "<p>Values far above the others are cut off at the top. Long runs are drawn in groups of steps: the line is "
      "their mean, the band what lies between the least and the largest.</p>\n";
  if (!samples.empty()) html += "<h2>Samples</h2>\n" + samples_section(samples, names);
  html += "<h2>Telemetry</h2>\n" + telemetry_section(runs, names, legend);
  return html + fmt::format("<footer>{}</footer>\n", escaped(provenance));
}

}  // namespace lomu

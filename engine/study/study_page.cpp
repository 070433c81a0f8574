#include "engine/study/study_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "engine/config/terminal.h"
#include "engine/page/html.h"
#include "engine/page/plot.h"
#include "engine/study/findings.h"
#include "engine/study/study_spectra.h"

namespace lomu {
namespace {

std::string metric_name(const Study& study) {
  return study.metric == "validation_loss" ? "validation loss" : "training loss";
}

bool are_numbers(std::span<const StudyCurve> curves, bool positive) {
  for (const StudyCurve& curve : curves) {
    for (const StudyPoint& point : curve.points) {
      char* end = nullptr;
      const double x = std::strtod(point.x.c_str(), &end);
      if (point.x.empty() || *end != '\0' || (positive && x <= 0)) return false;
    }
  }
  return true;
}

PlotLine plotted(const StudyCurve& curve, const std::string& name, bool by_place) {
  PlotLine line{name, {}, std::nullopt};
  const auto best = curve.best();
  for (std::size_t i = 0; i < curve.points.size(); ++i) {
    const auto median = curve.points[i].median();
    if (!median) continue;
    if (best == i) line.marked = line.points.size();
    const auto& values = curve.points[i].values;
    line.points.push_back({by_place ? static_cast<double>(i) : std::strtod(curve.points[i].x.c_str(), nullptr), *median,
                           values.front(), values.back()});
  }
  return line;
}

std::string line_name(const Study& study, const StudyCurve& curve) {
  return curve.line.empty() ? curve.variant : fmt::format("{} {}", short_name(study.lines), curve.line);
}

/// A picture for each variant, or one for all where there are no lines.
std::string plots_of(const Study& study, std::span<const StudyCurve> curves) {
  const bool numbers = are_numbers(curves, false);
  std::vector<Plot> plots;
  for (const StudyCurve& curve : curves) {
    const std::string title = study.lines.empty() ? metric_name(study) : curve.variant;
    if (plots.empty() || plots.back().title != title) {
      plots.push_back({title, study.x, metric_name(study), are_numbers(curves, true), {}});
    }
    plots.back().lines.push_back(plotted(curve, line_name(study, curve), !numbers));
  }
  std::string html;
  for (const Plot& plot : plots) html += svg_of(plot);
  return html;
}

/// Medians of every point; the best of each curve in bold.
std::string medians_of(const Study& study, std::span<const StudyCurve> curves) {
  std::string html;
  for (std::size_t i = 0; i < curves.size();) {
    std::size_t end = i;
    while (end < curves.size() && curves[end].variant == curves[i].variant) ++end;
    std::vector<std::string> xs;
    for (std::size_t c = i; c < end; ++c) {
      for (const StudyPoint& point : curves[c].points) {
        if (std::find(xs.begin(), xs.end(), point.x) == xs.end()) xs.push_back(point.x);
      }
    }
    std::vector<std::string> head = {study.lines.empty() ? "" : short_name(study.lines)};
    for (const std::string& x : xs) head.push_back(fmt::format("{} {}", short_name(study.x), x));
    std::vector<std::vector<std::string>> rows;
    for (std::size_t c = i; c < end; ++c) {
      std::vector<std::string> row = {curves[c].line};
      for (const std::string& x : xs) {
        std::string cell;
        for (std::size_t p = 0; p < curves[c].points.size(); ++p) {
          const StudyPoint& point = curves[c].points[p];
          if (point.x != x) continue;
          const auto median = point.median();
          cell = median ? fmt::format("{}{:.4f}", curves[c].best() == p ? "*" : "", *median) : "diverged";
          if (point.values.size() > 1)
            cell += fmt::format(" ±{:.4f}", (point.values.back() - point.values.front()) / 2);
          if (median && point.without > 0) cell += fmt::format(" ({} without)", point.without);
        }
        row.push_back(cell);
      }
      rows.push_back(std::move(row));
    }
    html += fmt::format("<h3>{}</h3>\n{}", escaped(curves[i].variant), html_table(head, rows));
    i = end;
  }
  return html;
}

/// Where the optima lie between the points of the grid; empty when fewer than two are known.
std::string between_sentence(const Transfer& t, const std::string& along) {
  std::string places;
  double least = INFINITY, most = 0;
  std::size_t known = 0;
  for (std::size_t i = 0; i < t.lines.size(); ++i) {
    if (!t.optimum[i]) continue;
    places += fmt::format("{}{} {}: {:.3g}", known++ > 0 ? ", " : "", along, t.lines[i], *t.optimum[i]);
    least = std::min(least, *t.optimum[i]);
    most = std::max(most, *t.optimum[i]);
  }
  if (known < 2) return "";
  const std::string law = t.exponent ? fmt::format(", about as {}^{:.2f}", along, *t.exponent) : "";
  return fmt::format(" Between the points of the grid it moves by a factor of {:.2f}{} ({}).", most / least, law,
                     places);
}

std::vector<std::string> transfer_sentences(const Study& study, std::span<const StudyCurve> curves) {
  std::vector<std::string> sentences;
  const std::string x = short_name(study.x);
  const std::string along = study.lines.empty() ? "" : short_name(study.lines);
  for (const Transfer& t : transfer_of(curves)) {
    if (t.best.front() == std::nullopt) {
      sentences.push_back(
          fmt::format("{}: no run at the first {} has a result, so nothing can be said.", t.variant, along));
      continue;
    }
    if (t.lines.size() == 1) {
      sentences.push_back(
          fmt::format("{}: best at {} {} with {:.4f}.", t.variant, x, t.best_x.front(), t.best_value.front()));
      continue;
    }
    std::string path;
    for (std::size_t i = 0; i < t.lines.size(); ++i) {
      path +=
          fmt::format("{}{} {}: {}", i > 0 ? ", " : "", along, t.lines[i], t.best_x[i].empty() ? "none" : t.best_x[i]);
    }
    const std::string how = t.moved == 0   ? "stands still"
                            : t.moved == 1 ? "moves by one step of the grid"
                                           : fmt::format("moves by {} steps of the grid", t.moved);
    double cost = 0;
    std::size_t worst = 0;
    bool unknown = false;
    for (std::size_t i = 0; i < t.cost_of_keeping.size(); ++i) {
      unknown = unknown || !std::isfinite(t.cost_of_keeping[i]);
      if (std::isfinite(t.cost_of_keeping[i]) && t.cost_of_keeping[i] > cost) {
        cost = t.cost_of_keeping[i];
        worst = i;
      }
    }
    const std::string kept = cost > 0 ? fmt::format("costs at most {:.4f} (at {} {})", cost, along, t.lines[worst])
                                      : std::string("costs nothing that the grid can show");
    sentences.push_back(
        fmt::format("{}: the best {} {} ({}).{} Keeping that of {} {} everywhere {}{}.{}", t.variant, x, how, path,
                    between_sentence(t, along), along, t.lines.front(), kept,
                    unknown ? ", and diverges or was not run in places" : "",
                    t.at_the_edge ? " A best value lies at the edge of the grid: the optimum may be beyond." : ""));
  }
  return sentences;
}

std::vector<std::string> invariance_sentences(const Study& study, std::span<const StudyRecord> records) {
  std::vector<std::string> sentences;
  for (const Invariance& i : invariance_of(study, records)) {
    const std::string name =
        i.line.empty() ? i.variant : fmt::format("{}, {} {}", i.variant, short_name(study.lines), i.line);
    if (!i.largest) {
      sentences.push_back(fmt::format("{}: no pair of runs to compare.", name));
      continue;
    }
    sentences.push_back(fmt::format("{}: the {} moves by at most {:.2e} over {} from {} to {}{}.", name,
                                    metric_name(study), *i.largest, short_name(study.x), i.x.front(), i.x.back(),
                                    i.without > 0 ? fmt::format(", and {} runs diverged or failed", i.without) : ""));
  }
  return sentences;
}

std::vector<std::string> answers_of(const Study& study, std::span<const StudyRecord> records) {
  switch (study.question) {
    case StudyQuestion::kTransfer: return transfer_sentences(study, curves_of(study, records));
    case StudyQuestion::kInvariance: return invariance_sentences(study, records);
    case StudyQuestion::kSpectra: return spectra_sentences(study, records);
  }
  return {};
}

std::vector<std::string> sentences_of(const Study& study, std::span<const StudyRecord> records) {
  std::vector<std::string> sentences = answers_of(study, records);
  std::size_t failed = 0;
  for (const StudyRecord& r : records) failed += !r.failure.empty() && !r.diverged ? 1 : 0;
  if (failed > 0) {
    sentences.push_back(fmt::format("{} runs failed for another reason than divergence: their logs say why.", failed));
  }
  return sentences;
}

std::string invariance_table(const Study& study, std::span<const StudyRecord> records) {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  for (const Invariance& found : invariance_of(study, records)) {
    if (head.empty()) {
      head = {"change of the " + metric_name(study)};
      for (const std::string& x : found.x) head.push_back(fmt::format("{} {}", short_name(study.x), x));
    }
    std::vector<std::string> row = {found.line.empty() ? found.variant
                                                       : fmt::format("{} {}", found.variant, found.line)};
    for (const auto& change : found.change) row.push_back(change ? fmt::format("{:.2e}", *change) : "-");
    rows.push_back(std::move(row));
  }
  return html_table(head, rows);
}

}  // namespace

std::string verdict_of(const Study& study, std::span<const StudyRecord> records) {
  std::string text;
  for (const std::string& sentence : sentences_of(study, records)) text += sentence + "\n";
  return text;
}

std::string page_of(const Study& study, std::span<const StudyRecord> records, const std::string& provenance) {
  const std::vector<StudyCurve> curves = curves_of(study, records);
  const std::string name = study.file.stem().string();
  std::uint64_t tokens = 0;
  double seconds = 0;
  for (const StudyRecord& r : records) {
    tokens += r.tokens;
    seconds += r.seconds;
  }
  std::string html = page_beginning(name);
  html += fmt::format("<p class=\"claim\">{}</p>\n<h2>Verdict</h2><ul class=\"verdict\">\n", escaped(study.claim));
  for (const std::string& sentence : sentences_of(study, records)) {
    html += fmt::format("<li>{}</li>\n", escaped(sentence));
  }
  html += "</ul>\n<h2>Curves</h2>\n" + plots_of(study, curves);
  html +=
      fmt::format("<p>Lines are medians{}, bands reach from the least to the largest value, rings mark the best.</p>\n",
                  study.repeat.empty() ? "" : fmt::format(" over {}", short_name(study.repeat)));
  if (study.question == StudyQuestion::kInvariance) {
    html += "<h2>How far the result moves</h2>\n" + invariance_table(study, records);
  }
  html += growth_section(study, records);
  if (study.question == StudyQuestion::kSpectra) html += "<h2>Spectra</h2>\n" + spectra_section(study, records);
  html += fmt::format("<h2>{} by {}</h2>\n", "Medians", escaped(study.x)) + medians_of(study, curves);
  html +=
      fmt::format("<h2>The job</h2>\n<p>{} runs, {} tokens, {} of computing.</p>\n<pre>{}</pre>\n<footer>{}</footer>\n",
                  records.size(), human_count(static_cast<double>(tokens)), human_duration(seconds), escaped(study.job),
                  escaped(provenance));
  return html;
}

}  // namespace lomu

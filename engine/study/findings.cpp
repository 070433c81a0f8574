#include "engine/study/findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace lomu {
namespace {

/// The logarithm of a text that is a positive number.
std::optional<double> log_of(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value > 0) || !std::isfinite(value)) return std::nullopt;
  return std::log(value);
}

bool is_less(const std::string& a, const std::string& b) {
  char* end_a = nullptr;
  char* end_b = nullptr;
  const double x = std::strtod(a.c_str(), &end_a);
  const double y = std::strtod(b.c_str(), &end_b);
  if (*end_a == '\0' && *end_b == '\0' && !a.empty() && !b.empty()) return x < y;
  return a < b;
}

}  // namespace

std::optional<double> StudyPoint::median() const {
  if (values.size() <= without) return std::nullopt;
  return median_of(values);
}

std::optional<std::size_t> StudyCurve::best() const {
  std::optional<std::size_t> found;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto value = points[i].median();
    if (value && (!found || *value < *points[*found].median())) found = i;
  }
  return found;
}

std::optional<double> StudyCurve::optimum() const {
  const auto middle = best();
  if (!middle || *middle == 0 || *middle + 1 >= points.size()) return std::nullopt;
  std::array<double, 3> x{}, y{};
  for (std::size_t i = 0; i < 3; ++i) {
    const StudyPoint& point = points[*middle - 1 + i];
    const auto place = log_of(point.x);
    const auto value = point.median();
    if (!place || !value) return std::nullopt;
    x[i] = *place;
    y[i] = *value;
  }
  // Divided differences: rising from left to right, as the middle is the lowest; flat when all three are the same.
  const double left = (y[1] - y[0]) / (x[1] - x[0]);
  const double right = (y[2] - y[1]) / (x[2] - x[1]);
  if (!(right > left)) return std::exp(x[1]);
  return std::exp((x[0] + x[1]) / 2 - left * (x[2] - x[0]) / (2 * (right - left)));
}

std::vector<StudyCurve> curves_of(const Study& study, std::span<const StudyRecord> records) {
  std::vector<StudyCurve> curves;
  for (const StudyRecord& record : records) {
    const std::string line = study.lines.empty() ? std::string() : record.place(study.lines);
    auto curve = std::find_if(curves.begin(), curves.end(),
                              [&](const StudyCurve& c) { return c.variant == record.variant && c.line == line; });
    if (curve == curves.end()) curve = curves.insert(curves.end(), StudyCurve{record.variant, line, {}});
    const std::string x = record.place(study.x);
    auto point =
        std::find_if(curve->points.begin(), curve->points.end(), [&](const StudyPoint& p) { return p.x == x; });
    if (point == curve->points.end()) point = curve->points.insert(curve->points.end(), StudyPoint{x, {}, 0});
    if (const auto value = record.value(study.metric)) {
      point->values.push_back(*value);
    } else {
      ++point->without;
    }
  }
  for (StudyCurve& curve : curves) {
    std::stable_sort(curve.points.begin(), curve.points.end(),
                     [](const StudyPoint& a, const StudyPoint& b) { return is_less(a.x, b.x); });
    for (StudyPoint& point : curve.points) std::sort(point.values.begin(), point.values.end());
  }
  std::stable_sort(curves.begin(), curves.end(), [&](const StudyCurve& a, const StudyCurve& b) {
    const auto order = [&](const std::string& name) {
      return std::find_if(study.variants.begin(), study.variants.end(), [&](const auto& v) { return v.name == name; }) -
             study.variants.begin();
    };
    if (a.variant != b.variant) return order(a.variant) < order(b.variant);
    return is_less(a.line, b.line);
  });
  return curves;
}

std::optional<double> exponent_of(std::span<const std::string> lines, std::span<const std::optional<double>> values) {
  std::vector<double> x, y;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto place = log_of(lines[i]);
    if (!place || !values[i]) continue;
    x.push_back(*place);
    y.push_back(std::log(*values[i]));
  }
  if (x.size() < 3) return std::nullopt;
  const auto count = static_cast<double>(x.size());
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / count;
  const double mean_y = std::accumulate(y.begin(), y.end(), 0.0) / count;
  double xx = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  return xy / xx;
}

std::vector<Transfer> transfer_of(std::span<const StudyCurve> curves) {
  std::vector<Transfer> all;
  for (const StudyCurve& curve : curves) {
    if (all.empty() || all.back().variant != curve.variant) {
      all.emplace_back();
      all.back().variant = curve.variant;
    }
    Transfer& transfer = all.back();
    const auto best = curve.best();
    transfer.lines.push_back(curve.line);
    transfer.best.push_back(best);
    transfer.optimum.push_back(curve.optimum());
    const double nan = std::numeric_limits<double>::quiet_NaN();
    transfer.best_x.push_back(best ? curve.points[*best].x : std::string());
    transfer.best_value.push_back(best ? *curve.points[*best].median() : nan);
    const auto& repeats = best ? curve.points[*best].values : std::vector<double>{};
    transfer.worst_spread.push_back(repeats.size() > 1 ? fmt::format("{:.4f}", repeats.back() - repeats.front()) : "");
    // Grids of several lines may differ; a rate is kept by its value.
    const std::string& kept = transfer.best_x.front();
    const auto there =
        std::find_if(curve.points.begin(), curve.points.end(), [&](const auto& p) { return p.x == kept; });
    const auto value = there == curve.points.end() ? std::nullopt : there->median();
    transfer.cost_of_keeping.push_back(value && best ? *value - *curve.points[*best].median() : nan);
    if (best) transfer.at_the_edge = transfer.at_the_edge || *best == 0 || *best + 1 == curve.points.size();
  }
  for (Transfer& transfer : all) {
    transfer.exponent = exponent_of(transfer.lines, transfer.optimum);
    std::vector<std::size_t> places;
    for (const auto& best : transfer.best) {
      if (best) places.push_back(*best);
    }
    if (places.empty()) continue;
    const auto [least, most] = std::minmax_element(places.begin(), places.end());
    transfer.moved = *most - *least;
  }
  return all;
}

std::vector<Invariance> invariance_of(const Study& study, std::span<const StudyRecord> records) {
  std::vector<Invariance> all;
  for (const StudyCurve& curve : curves_of(study, records)) {
    Invariance& found = all.emplace_back();
    found.variant = curve.variant;
    found.line = curve.line;
    const auto value_at = [&](const std::string& x, const std::string& repeat) -> std::optional<double> {
      for (const StudyRecord& r : records) {
        const bool here = r.variant == curve.variant && r.place(study.x) == x &&
                          (study.lines.empty() || r.place(study.lines) == curve.line) &&
                          (study.repeat.empty() || r.place(study.repeat) == repeat);
        if (here) return r.value(study.metric);
      }
      return std::nullopt;
    };
    std::vector<std::string> repeats;
    for (const StudyRecord& r : records) {
      const std::string repeat = study.repeat.empty() ? std::string() : r.place(study.repeat);
      if (std::find(repeats.begin(), repeats.end(), repeat) == repeats.end()) repeats.push_back(repeat);
    }
    for (const StudyPoint& point : curve.points) {
      found.x.push_back(point.x);
      found.without += point.without;
      std::vector<double> changes;
      for (const std::string& repeat : repeats) {
        const auto first = value_at(curve.points.front().x, repeat);
        const auto here = value_at(point.x, repeat);
        if (first && here) changes.push_back(std::abs(*here - *first));
      }
      found.change.push_back(changes.empty() ? std::nullopt : std::optional(median_of(changes)));
      if (found.change.back()) found.largest = std::max(found.largest.value_or(0), *found.change.back());
    }
  }
  return all;
}

}  // namespace lomu

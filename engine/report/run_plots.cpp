#include "engine/report/run_plots.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "engine/page/heat_map.h"
#include "engine/page/plot.h"

namespace lomu {
namespace {

constexpr std::size_t kMostPoints = 200;
constexpr std::size_t kMostColumns = 60;

/// The value at the place q of 0 to 1 of the sorted values.
double quantile_of(std::vector<double>& values, double q) {
  std::sort(values.begin(), values.end());
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

/// Neighbours joined until few enough are left to be told apart.
std::vector<PlotPoint> grouped(const std::vector<PlotPoint>& points) {
  const std::size_t size = (points.size() + kMostPoints - 1) / kMostPoints;
  if (size <= 1) return points;
  std::vector<PlotPoint> groups;
  for (std::size_t begin = 0; begin < points.size(); begin += size) {
    const std::size_t end = std::min(begin + size, points.size());
    PlotPoint group{0, 0, points[begin].low, points[begin].high};
    for (std::size_t i = begin; i < end; ++i) {
      group.x += points[i].x / static_cast<double>(end - begin);
      group.y += points[i].y / static_cast<double>(end - begin);
      group.low = std::min(group.low, points[i].low);
      group.high = std::max(group.high, points[i].high);
    }
    groups.push_back(group);
  }
  return groups;
}

template <class PointOf>
std::string plotted(std::span<const RunHistory> runs, std::span<const std::string> names, const std::string& title,
                    PointOf&& point_of) {
  Plot plot{title, "step", "", false, {}};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    std::vector<PlotPoint> points;
    for (const HistoryStep& step : runs[i].steps) {
      if (const std::optional<PlotPoint> point = point_of(step)) points.push_back(*point);
    }
    if (!points.empty()) plot.lines.push_back({names[i], grouped(points), std::nullopt});
  }
  return plot.lines.empty() ? std::string() : svg_of(plot);
}

}  // namespace

std::string plot_of_metric(std::span<const RunHistory> runs, std::span<const std::string> names,
                           const std::string& title, const std::string& key) {
  return plotted(runs, names, title, [&](const HistoryStep& step) -> std::optional<PlotPoint> {
    const auto found = step.numbers.find(key);
    if (found == step.numbers.end()) return std::nullopt;
    return PlotPoint{static_cast<double>(step.step), found->second, found->second, found->second};
  });
}

std::string plot_of_figure(std::span<const RunHistory> runs, std::span<const std::string> names,
                           const std::string& title, const std::string& figure) {
  return plotted(runs, names, title, [&](const HistoryStep& step) -> std::optional<PlotPoint> {
    std::vector<double> values;
    for (const HistoryPair& pair : step.pairs) {
      if (const auto found = pair.figures.find(figure); found != pair.figures.end()) values.push_back(found->second);
    }
    if (values.empty()) return std::nullopt;
    return PlotPoint{static_cast<double>(step.step), quantile_of(values, 0.5), quantile_of(values, 0.1),
                     quantile_of(values, 0.9)};
  });
}

std::string heat_map_of_figure(const RunHistory& run, const std::string& title, const std::string& figure,
                               bool logarithmic) {
  std::vector<const HistoryStep*> seen;
  for (const HistoryStep& step : run.steps) {
    if (!step.pairs.empty()) seen.push_back(&step);
  }
  const std::size_t stride = std::max<std::size_t>(1, (seen.size() + kMostColumns - 1) / kMostColumns);
  HeatMap map{title, "step", "layer", {}, {}, {}, logarithmic};
  std::vector<std::map<int, std::vector<double>>> by_layer;
  std::set<int> layers;
  for (std::size_t i = 0; i < seen.size(); i += stride) {
    map.columns.push_back(std::to_string(seen[i]->step));
    auto& column = by_layer.emplace_back();
    for (const HistoryPair& pair : seen[i]->pairs) {
      const auto found = pair.figures.find(figure);
      const auto layer = layer_of(pair.name);
      if (!layer || found == pair.figures.end()) continue;
      column[*layer].push_back(found->second);
      layers.insert(*layer);
    }
  }
  for (const int layer : layers) {
    map.rows.push_back(std::to_string(layer));
    auto& row = map.values.emplace_back();
    for (auto& column : by_layer) {
      const auto found = column.find(layer);
      row.push_back(found == column.end() ? std::numeric_limits<double>::quiet_NaN() : quantile_of(found->second, 0.5));
    }
  }
  return svg_of(map);
}

}  // namespace lomu

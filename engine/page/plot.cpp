#include "engine/page/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/page/html.h"

namespace lomu {
namespace {

constexpr double kWidth = 640, kHeight = 360;
constexpr double kLeft = 64, kRight = 150, kTop = 34, kBottom = 46;
// Okabe and Ito, "Color universal design", 2008, without yellow and black.
constexpr std::array kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f"};

struct Range {
  double low = 0, high = 1;
  [[nodiscard]] double share(double value) const { return (value - low) / (high - low); }
};

double on_axis(const Plot& plot, double x) {
  return plot.logarithmic ? std::log10(x) : x;
}

Range x_range(const Plot& plot) {
  Range range{1e300, -1e300};
  for (const PlotLine& line : plot.lines) {
    for (const PlotPoint& p : line.points) {
      range.low = std::min(range.low, on_axis(plot, p.x));
      range.high = std::max(range.high, on_axis(plot, p.x));
    }
  }
  if (range.low > range.high) return {0, 1};
  if (range.low == range.high) return {range.low - 0.5, range.high + 0.5};
  return range;
}

/// From the least value to where the better half of all lies, and half as much again above it.
Range y_range(const Plot& plot) {
  std::vector<double> values;
  for (const PlotLine& line : plot.lines) {
    for (const PlotPoint& p : line.points) values.insert(values.end(), {p.low, p.high});
  }
  if (values.empty()) return {0, 1};
  std::sort(values.begin(), values.end());
  const double low = values.front();
  const double most = values[values.size() * 3 / 4 - (values.size() * 3 / 4 == values.size() ? 1 : 0)];
  const double high = std::min(values.back(), most + 0.5 * (most - low) + 1e-9 * std::abs(most));
  // Values that hardly differ are drawn as a flat line, not as a picture of their last digits.
  const double size = std::max(std::abs(low), std::abs(high));
  const double room = 0.05 * std::max(high - low, size > 0 ? 1e-6 * size : 1.0);
  return {low - room, high + room};
}

/// A step of 1, 2 or 5 times a power of ten that gives about five marks.
double tick_step(const Range& range) {
  const double rough = (range.high - range.low) / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10 * power;
}

/// Where the x axis has marks: at every value while they are few, else at round numbers.
std::vector<double> x_marks(const Plot& plot, const Range& range) {
  constexpr std::size_t kFew = 12;
  std::vector<double> marks;
  for (const PlotLine& line : plot.lines) {
    for (const PlotPoint& p : line.points) marks.push_back(p.x);
  }
  std::sort(marks.begin(), marks.end());
  marks.erase(std::unique(marks.begin(), marks.end()), marks.end());
  if (plot.logarithmic || marks.size() <= kFew) return marks;
  marks.clear();
  const double step = tick_step(range);
  for (double x = std::ceil(range.low / step) * step; x <= range.high; x += step) marks.push_back(x);
  return marks;
}

}  // namespace

std::string svg_of(const Plot& plot) {
  const Range xs = x_range(plot);
  const Range ys = y_range(plot);
  const auto px = [&](double x) { return kLeft + xs.share(on_axis(plot, x)) * (kWidth - kLeft - kRight); };
  const auto py = [&](double y) { return kTop + (1 - std::clamp(ys.share(y), 0.0, 1.0)) * (kHeight - kTop - kBottom); };
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">\n"
      "<text x=\"{}\" y=\"18\" class=\"title\">{}</text>\n",
      kWidth, kHeight, escaped(plot.title), kLeft, escaped(plot.title));
  const double step = tick_step(ys);
  for (double y = std::ceil(ys.low / step) * step; y <= ys.high; y += step) {
    svg += fmt::format(
        "<line x1=\"{0}\" y1=\"{2:.1f}\" x2=\"{1}\" y2=\"{2:.1f}\" class=\"grid\"/>"
        "<text x=\"{3}\" y=\"{4:.1f}\" class=\"tick\" text-anchor=\"end\">{5:.6g}</text>\n",
        kLeft, kWidth - kRight, py(y), kLeft - 6, py(y) + 4, std::abs(y) < step * 1e-6 ? 0.0 : y);
  }
  for (const double x : x_marks(plot, xs)) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" class=\"tick\" text-anchor=\"middle\">{:g}</text>\n", px(x),
                       kHeight - kBottom + 16, x);
  }
  svg += fmt::format(
      "<text x=\"{:.1f}\" y=\"{}\" class=\"label\" text-anchor=\"middle\">{}</text>"
      "<text transform=\"translate(14,{:.1f}) rotate(-90)\" class=\"label\" text-anchor=\"middle\">{}</text>\n",
      (kLeft + kWidth - kRight) / 2, kHeight - 8, escaped(plot.x_label), (kTop + kHeight - kBottom) / 2,
      escaped(plot.y_label));
  for (std::size_t i = 0; i < plot.lines.size(); ++i) {
    const PlotLine& line = plot.lines[i];
    const char* colour = kColours[i % kColours.size()];
    std::string upper, lower, middle;
    for (const PlotPoint& p : line.points) {
      upper += fmt::format("{:.1f},{:.1f} ", px(p.x), py(p.high));
      lower.insert(0, fmt::format("{:.1f},{:.1f} ", px(p.x), py(p.low)));
      middle += fmt::format("{:.1f},{:.1f} ", px(p.x), py(p.y));
    }
    svg += fmt::format("<polygon points=\"{}{}\" fill=\"{}\" opacity=\"0.15\"/>", upper, lower, colour);
    svg += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n", middle, colour);
    constexpr std::size_t kManyPoints = 50;  // they would hide their line
    for (std::size_t k = 0; k < line.points.size(); ++k) {
      const PlotPoint& p = line.points[k];
      const bool ring = line.marked == k;
      if (line.points.size() > kManyPoints && !ring) continue;
      svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\" fill=\"{}\" stroke=\"{}\" stroke-width=\"2\"/>",
                         px(p.x), py(p.y), ring ? 6 : 2.5, ring ? "none" : colour, colour);
    }
    const double row = kTop + 10 + 18 * static_cast<double>(i);
    svg += fmt::format(
        "\n<rect x=\"{0}\" y=\"{1}\" width=\"12\" height=\"3\" fill=\"{2}\"/>"
        "<text x=\"{3}\" y=\"{4}\" class=\"tick\">{5}</text>\n",
        kWidth - kRight + 12, row, colour, kWidth - kRight + 30, row + 6, escaped(line.name));
  }
  return svg + "</svg>\n";
}

}  // namespace lomu

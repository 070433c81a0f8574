#include "engine/page/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "engine/page/html.h"

namespace lomu {
namespace {

constexpr double kWidth = 640, kLeft = 64, kRight = 20, kTop = 34;

/// Of growing lightness, from dark violet over green to yellow, so that it reads in grey too.
std::string colour_of(double share) {
  constexpr std::array<std::array<double, 3>, 5> kStops = {
      {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};
  const double at = std::clamp(share, 0.0, 1.0) * static_cast<double>(kStops.size() - 1);
  const auto low = std::min(static_cast<std::size_t>(at), kStops.size() - 2);
  std::array<int, 3> mixed{};
  for (std::size_t c = 0; c < mixed.size(); ++c) {
    const double part = at - static_cast<double>(low);
    mixed[c] = static_cast<int>(std::lround((1 - part) * kStops[low][c] + part * kStops[low + 1][c]));
  }
  return fmt::format("#{:02x}{:02x}{:02x}", mixed[0], mixed[1], mixed[2]);
}

/// About `most` of `count` names, evenly.
std::size_t stride_of(std::size_t count, std::size_t most) {
  return std::max<std::size_t>(1, (count + most - 1) / most);
}

}  // namespace

std::string svg_of(const HeatMap& map) {
  const auto shown = [&](double value) { return map.logarithmic ? std::log10(value) : value; };
  double low = INFINITY, high = -INFINITY;
  for (const auto& row : map.values) {
    for (const double value : row) {
      if (!std::isfinite(shown(value))) continue;
      low = std::min(low, shown(value));
      high = std::max(high, shown(value));
    }
  }
  if (!(low <= high)) return {};
  const double field = (kWidth - kLeft - kRight) / static_cast<double>(map.columns.size());
  const double line = std::clamp(320.0 / static_cast<double>(map.rows.size()), 4.0, 22.0);
  const double bottom = kTop + line * static_cast<double>(map.rows.size());
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 {} {:.1f}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">\n"
      "<text x=\"{}\" y=\"18\" class=\"title\">{}</text>\n",
      kWidth, bottom + 78, escaped(map.title), kLeft, escaped(map.title));
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      const double value = map.values[r][c];
      if (!std::isfinite(shown(value))) continue;
      svg += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"><title>{}, {}: {:.4g}</title>"
          "</rect>",
          kLeft + field * static_cast<double>(c), kTop + line * static_cast<double>(r), field + 0.3, line + 0.3,
          colour_of(high > low ? (shown(value) - low) / (high - low) : 0.5), escaped(map.rows[r]),
          escaped(map.columns[c]), value);
    }
    svg += "\n";
  }
  for (std::size_t r = 0; r < map.rows.size(); r += stride_of(map.rows.size(), 16)) {
    svg += fmt::format("<text x=\"{}\" y=\"{:.1f}\" class=\"tick\" text-anchor=\"end\">{}</text>\n", kLeft - 6,
                       kTop + line * (static_cast<double>(r) + 0.5) + 4, escaped(map.rows[r]));
  }
  for (std::size_t c = 0; c < map.columns.size(); c += stride_of(map.columns.size(), 8)) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"tick\" text-anchor=\"middle\">{}</text>\n",
                       kLeft + field * (static_cast<double>(c) + 0.5), bottom + 16, escaped(map.columns[c]));
  }
  svg += fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"label\" text-anchor=\"middle\">{}</text>"
      "<text transform=\"translate(14,{:.1f}) rotate(-90)\" class=\"label\" text-anchor=\"middle\">{}</text>\n",
      (kLeft + kWidth - kRight) / 2, bottom + 34, escaped(map.x_label), (kTop + bottom) / 2, escaped(map.y_label));
  constexpr int kSteps = 32;
  for (int i = 0; i < kSteps; ++i) {
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"6.5\" height=\"10\" fill=\"{}\"/>",
                       kLeft + 200 + 6.0 * i, bottom + 52, colour_of((i + 0.5) / kSteps));
  }
  const auto told = [&](double value) { return map.logarithmic ? std::pow(10, value) : value; };
  return svg + fmt::format(
                   "\n<text x=\"{}\" y=\"{:.1f}\" class=\"tick\" text-anchor=\"end\">{:.3g}</text>"
                   "<text x=\"{}\" y=\"{:.1f}\" class=\"tick\">{:.3g}</text>\n</svg>\n",
                   kLeft + 192, bottom + 62, told(low), kLeft + 202 + 6 * kSteps, bottom + 62, told(high));
}

}  // namespace lomu

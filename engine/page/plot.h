// Line plots as SVG text that stands in a page by itself: no script, no font, no file from elsewhere.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace lomu {

struct PlotPoint {
  double x = 0;
  double y = 0;
  double low = 0, high = 0;  ///< of the band around it
};

struct PlotLine {
  std::string name;
  std::vector<PlotPoint> points;      ///< by rising x
  std::optional<std::size_t> marked;  ///< this point gets a ring
};

struct Plot {
  std::string title;
  std::string x_label, y_label;
  bool logarithmic = false;  ///< the x axis; all x are then positive
  std::vector<PlotLine> lines;
};

/// Values far above the others (diverging runs) are cut off at the top, so that the rest can be read. Colours follow
/// the page's `currentColor` for axes and a fixed palette that people who see few colours can tell apart for lines.
std::string svg_of(const Plot& plot);

}  // namespace lomu

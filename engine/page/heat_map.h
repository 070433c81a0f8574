// A matrix of numbers as coloured fields, as SVG text that stands in a page by itself.
#pragma once

#include <string>
#include <vector>

namespace lomu {

struct HeatMap {
  std::string title;
  std::string x_label, y_label;
  std::vector<std::string> columns, rows;   ///< their names; the first row is at the top
  std::vector<std::vector<double>> values;  ///< a vector for each row; NaN leaves a field empty
  bool logarithmic = false;                 ///< the colours; fields that are not positive stay empty
};

/// Dark is small and light is large; a scale under the fields says what the colours mean, and each field has its value
/// as a title. Empty text when no field has a value.
std::string svg_of(const HeatMap& map);

}  // namespace lomu

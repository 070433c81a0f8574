// Pictures of matrices: every value has its field, colours follow the order of the values, and names cannot break out.
#include "engine/page/heat_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>
#include <string>
#include <vector>

namespace lomu {
namespace {

using testing::HasSubstr;
using testing::Not;

HeatMap two_by_three() {
  return {"figure", "step", "layer", {"10", "20", "30"}, {"0", "1"}, {{1, 10, 100}, {NAN, 1000, 0}}, true};
}

/// Lightness of the field whose title is `title`.
double lightness(const std::string& svg, const std::string& title) {
  const std::regex field("fill=\"#(..)(..)(..)\"><title>" + title);
  std::smatch found;
  EXPECT_TRUE(std::regex_search(svg, found, field)) << title;
  if (found.size() != 4) return NAN;
  const auto part = [&](int i) { return std::stoi(found[static_cast<std::size_t>(i)].str(), nullptr, 16); };
  return 0.299 * part(1) + 0.587 * part(2) + 0.114 * part(3);
}

TEST(HeatMap, HasAFieldForEachValueAndGrowsLighter) {
  const std::string svg = svg_of(two_by_three());
  EXPECT_LT(lightness(svg, "0, 10: 1<"), lightness(svg, "0, 20: 10<"));
  EXPECT_LT(lightness(svg, "0, 20: 10<"), lightness(svg, "0, 30: 100<"));
  EXPECT_LT(lightness(svg, "0, 30: 100<"), lightness(svg, "1, 20: 1000<"));
  EXPECT_THAT(svg, Not(HasSubstr("1, 10:")));  // no number
  EXPECT_THAT(svg, Not(HasSubstr("1, 30:")));  // no logarithm
}

TEST(HeatMap, WithoutAValueIsNothing) {
  HeatMap map = two_by_three();
  map.values = {{NAN, NAN, NAN}, {NAN, -1, 0}};
  EXPECT_EQ(svg_of(map), "");
}

TEST(HeatMap, EscapesNames) {
  HeatMap map = two_by_three();
  map.title = "<b>";
  map.rows[0] = "\"><script>";
  EXPECT_THAT(svg_of(map), testing::AllOf(Not(HasSubstr("<b>")), Not(HasSubstr("<script>")), HasSubstr("&lt;b&gt;")));
}

}  // namespace
}  // namespace lomu

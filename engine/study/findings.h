// What the records of a study show, as numbers: medians over repeats, the best point of each curve, how far it moves
// and what keeping it costs. Words and pictures are study_page.h's.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/study/study_file.h"
#include "engine/study/study_record.h"

namespace lomu {

/// The repeats of one place.
struct StudyPoint {
  std::string x;
  std::vector<double> values;  ///< of the repeats that have one, sorted
  std::size_t without = 0;     ///< repeats that diverged or failed

  /// The middle one, of an even number the mean of the two; nothing when half of the repeats or more have none.
  [[nodiscard]] std::optional<double> median() const;
};

struct StudyCurve {
  std::string variant;
  std::string line;  ///< value of the axis of lines; empty without one
  std::vector<StudyPoint> points;

  /// Index of the point with the least median; nothing when none has one.
  [[nodiscard]] std::optional<std::size_t> best() const;

  /// Where the parabola in log x through the best point and its neighbours is lowest; nothing when a neighbour is
  /// missing or has no median, or x is no positive number.
  [[nodiscard]] std::optional<double> optimum() const;
};

/// One curve for each variant and line, in the order of the study; points in the order of the axis.
std::vector<StudyCurve> curves_of(const Study& study, std::span<const StudyRecord> records);

/// e in value = constant x line^e, by least squares in logarithms over the lines that have a value; nothing with fewer
/// than three of them, or where lines are no positive numbers.
std::optional<double> exponent_of(std::span<const std::string> lines, std::span<const std::optional<double>> values);

/// For a variant: what its curves say about transfer.
struct Transfer {
  std::string variant;
  std::vector<std::string> lines;
  std::vector<std::optional<std::size_t>> best;  ///< index into the curve's points, of each line
  std::vector<std::string> best_x;               ///< empty where there is none
  std::vector<double> best_value;                ///< its median
  std::vector<std::string> worst_spread;         ///< largest - smallest of the repeats there, as text
  /// Loss at the best x of the first line, minus the line's own best; NaN where that point has no value.
  std::vector<double> cost_of_keeping;
  std::vector<std::optional<double>> optimum;  ///< of each line, between the points of the grid
  std::optional<double> exponent;              ///< of the optimum over the lines
  std::size_t moved = 0;                       ///< largest distance of two best points, in steps of the grid
  bool at_the_edge = false;  ///< a best point is the first or last of the grid: the optimum may lie beyond
};
std::vector<Transfer> transfer_of(std::span<const StudyCurve> curves);

/// For a variant: how far its values are from those at the first x, repeat by repeat.
struct Invariance {
  std::string variant;
  std::string line;
  std::vector<std::string> x;
  std::vector<std::optional<double>> change;  ///< median of |value - value at the first x| over repeats
  std::optional<double> largest;
  std::size_t without = 0;  ///< runs that diverged or failed
};
std::vector<Invariance> invariance_of(const Study& study, std::span<const StudyRecord> records);

}  // namespace lomu

// What `lomu verify` prints: a line a case for people, or one JSON array. Knows nothing of how a check was made.
#pragma once

#include <span>
#include <string>

#include "engine/config/terminal.h"

namespace lomu {

/// One quantity of one case.
struct Check {
  std::string case_name;
  std::string quantity;
  double error = 0;
  double tolerance = 0;
  bool pass = false;
  std::string note;  ///< what a reader should know beside the numbers; usually empty
  std::string set;   ///< of cases that text shows as one line: their folder; empty: this case has a line of its own
};

/// A line a case (or set of cases), with the quantity that came nearest to its limit, and under it a line for every
/// quantity that fell short; then how many passed.
std::string verify_text(std::span<const Check> checks, const Style& style);

/// [{"case", "quantity", "error", "tolerance", "pass"}], an object a line. Numbers beyond JSON are written as 1e300.
std::string verify_json(std::span<const Check> checks);

}  // namespace lomu

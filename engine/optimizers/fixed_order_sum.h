// Sums of squares whose order of additions is fixed by the length alone: not by threads, alignment or the compiler's
// mood. Not a general reduction library.
#pragma once

#include <span>

namespace lomu {

/// Sum of x_i^2 in double. Products of float32 are exact in double, so only the additions round.
double sum_of_squares(std::span<const float> x);
double sum_of_squares(std::span<const double> x);

}  // namespace lomu

#include "engine/optimizers/fixed_order_sum.h"

#include <cstddef>

namespace lomu {
namespace {

// Thirty-two running sums, element i in sum i mod 32: enough independent additions to fill the pipelines of a core with
// 512-bit vectors, and written so that the compiler vectorises without being allowed to reorder.
constexpr std::size_t kSums = 32;

template <class T>
double sum_in_lanes(std::span<const T> x) {
  double sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= x.size(); i += kSums) {
    for (std::size_t lane = 0; lane < kSums; ++lane) {
      const double value = x[i + lane];
      sums[lane] += value * value;
    }
  }
  for (; i < x.size(); ++i) {
    const double value = x[i];
    sums[i % kSums] += value * value;
  }
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

double sum_of_squares(std::span<const float> x) {
  return sum_in_lanes(x);
}
double sum_of_squares(std::span<const double> x) {
  return sum_in_lanes(x);
}

}  // namespace lomu

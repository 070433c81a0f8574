#include "engine/optimizers/telemetry.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/optimizers/small_matrix.h"
#include "engine/optimizers/tall_products.h"
#include "kernels/error.h"

namespace lomu {

std::vector<double> product_spectrum(std::span<const float> left, std::span<const float> right, std::int64_t m,
                                     std::int64_t n, std::int64_t r, double scale) {
  if (m < 1 || n < 1 || r < 1 || left.size() != static_cast<std::size_t>(m * r) ||
      right.size() != static_cast<std::size_t>(n * r)) {
    throw UsageError(fmt::format("factors of {} and {} entries do not fit a {} x {} weight of rank {}", left.size(),
                                 right.size(), m, n, r));
  }
  const SmallMatrix left_gram = gram_of({false, m, r}, left.data());
  const SmallMatrix right_gram = gram_of({true, n, r}, right.data());
  if (!std::isfinite(left_gram.trace()) || !std::isfinite(right_gram.trace())) {
    throw NumericError("a factor has an entry that is not finite");
  }
  std::vector<double> values = singular_values_of_product(left_gram, right_gram);
  values.resize(static_cast<std::size_t>(std::min({m, n, r})));
  for (double& value : values) value *= std::abs(scale);
  return values;
}

double stable_rank(std::span<const double> singular_values) {
  double largest = 0.0;
  double sum = 0.0;
  for (const double sigma : singular_values) {
    largest = std::max(largest, sigma);
    sum += sigma * sigma;
  }
  return largest > 0.0 ? sum / (largest * largest) : 0.0;
}

}  // namespace lomu

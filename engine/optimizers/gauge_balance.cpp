#include "engine/optimizers/gauge_balance.h"

#include <cmath>

#include "engine/optimizers/small_matrix.h"
#include "engine/optimizers/tall_products.h"

namespace lomu {
namespace {

void scale_by(std::span<float> values, float factor) {
  for (float& x : values) x *= factor;
}

}  // namespace

double balance_gauge(const PairView& pair, std::span<float> momentum_left, std::span<float> momentum_right) {
  const double left_norm = spectral_norm(gram_of({false, pair.m, pair.r}, pair.left));
  const double right_norm = spectral_norm(gram_of({true, pair.n, pair.r}, pair.right));
  if (!(left_norm > 0.0) || !(right_norm > 0.0)) return 1.0;
  const double exponent = std::round(0.5 * std::log2(right_norm / left_norm));
  if (exponent == 0.0) return 1.0;
  const auto c = static_cast<float>(std::exp2(exponent));
  scale_by({pair.left, static_cast<std::size_t>(pair.m * pair.r)}, c);
  scale_by({pair.right, static_cast<std::size_t>(pair.n * pair.r)}, 1.0f / c);
  scale_by(momentum_left, 1.0f / c);
  scale_by(momentum_right, c);
  return c;
}

}  // namespace lomu

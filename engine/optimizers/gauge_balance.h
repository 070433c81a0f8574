// Gauge balance: P <- c P, Q <- Q / c, with momenta the other way round. The product and every later step stay what
// they were; only the float32 range in which the two factors live changes. Not a part of the step: run it now and then.
#pragma once

#include <span>

#include "engine/optimizers/optimizer.h"

namespace lomu {

/// Brings ||P||_2 and ||Q||_2 within a factor of two of each other: c is sqrt(||Q||_2 / ||P||_2) rounded to a power of
/// two, so that no mantissa changes and balancing is exact, bit for bit, wherever nothing leaves the float32 range.
/// Does nothing where a factor is zero. Returns c.
double balance_gauge(const PairView& pair, std::span<float> momentum_left, std::span<float> momentum_right);

}  // namespace lomu

// Weights that nobody trained, for measurements: what a step costs depends on shapes, not on what a model knows. Not
// for starting a training from.
#pragma once

#include <cstdint>
#include <span>

#include "models/files/names.h"

namespace lomu {

/// Elements [first, first + out.size()) of a weight: 1 for norms; else uniform with mean 0 and standard deviation 0.02,
/// the usual one of untrained models, so that activations stay in range at any depth. A function of the place alone.
void random_weight(WeightId id, std::int64_t first, std::span<float> out);

}  // namespace lomu

// Choosing the next token from logits: greedy, or at a temperature from the smallest set of tokens that holds a share
// top_p of the probability. A choice is a pure function of logits, seed, sequence and position: never of a shared
// stream.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace lomu {

struct SamplingOptions {
  double temperature = 0;  ///< 0: greedy
  double top_p = 1;        ///< in (0, 1]
  std::uint64_t seed = 0;
};

/// Throws UsageError for a temperature that is negative or not finite, or top_p outside (0, 1].
void validate(const SamplingOptions& options);

/// logits: row `row` of [*, vocab] f32 or f64. `sequence` and `position` (of the token being chosen) select the random
/// number. Ties go to the lowest id. Throws NumericError if no logit is finite.
std::int32_t choose_token(const Tensor& logits, std::int64_t row, const SamplingOptions& options, std::int64_t sequence,
                          std::int64_t position);

}  // namespace lomu

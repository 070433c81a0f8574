// The log-sum-exp of attention as libraries on older GPUs want it: a row of equal length for every sequence and head.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// padded[s][h][i] = lse[offsets[s] + i * heads + h] for i < lengths[s], 0 for i from there to max_length.
/// lse: the rows of a packed batch, `heads` floats each; offsets: where sequence s begins in it, in floats.
void pad_lse(const float* lse, const std::int32_t* offsets, const std::int32_t* lengths, std::int64_t sequences,
             std::int64_t heads, std::int64_t max_length, float* padded, Stream stream);

}  // namespace lomu::cuda

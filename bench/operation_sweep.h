// What the sweeps over single operations share: matrices where a backend works, and the time of a call there.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/memory.h"
#include "kernels/ops.h"

namespace lomu {

/// A matrix in a backend's storage.
struct SweepMatrix {
  Buffer buffer;
  Tensor tensor;
};

/// Uniform numbers in [-1, 1), the same few rows over and over: rates do not depend on more.
SweepMatrix random_matrix(Memory& memory, DType dtype, std::int64_t rows, std::int64_t cols, std::uint64_t stream);
SweepMatrix zero_matrix(Memory& memory, DType dtype, std::int64_t rows, std::int64_t cols);

/// Seconds of one call of `work`, which writes `result`: calls without a wait between them, as many as take about
/// `seconds`, in three rounds of which the best counts. Two calls before that are not counted.
double seconds_of_call(Storage& storage, const Tensor& result, double seconds, const std::function<void()>& work);

}  // namespace lomu

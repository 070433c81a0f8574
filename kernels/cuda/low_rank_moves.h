// Small copies around the products of an adapted linear layer: low-rank activations into the spare columns beside a
// layer's input, and the rows of a stacked factor gradient to where each adapter's lies. Bytes: a few in a thousand of
// what the products move.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// spare = [s | 0 ... 0 | 1 1]: fills `width` columns behind a layer's input with the `rank` columns of s, zeros, and
/// where `bias` is true ones in the last two (then rank <= width - 2), which meet the layer's bias. s may be the first
/// columns of `spare` itself. T is BF16 or float.
template <class T>
void fill_spare_columns(DeviceRows<const T> s, std::int64_t rank, bool bias, DeviceRows<T> spare, std::int64_t width,
                        std::int64_t rows, Stream stream);

/// A run of floats and where it goes.
struct FloatRun {
  const float* from = nullptr;
  float* to = nullptr;
  std::int64_t count = 0;
};

/// Copies every run; they do not overlap. One launch for each four.
void copy_runs(std::span<const FloatRun> runs, Stream stream);

}  // namespace lomu::cuda

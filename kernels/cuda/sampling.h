// Greedy choice of the next token. Temperature, top-k and top-p stay on the host: they want a row of logits sorted and
// a random number from the run's own generator, once for each generated token.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// best[i] = the column of the largest element of row i, the lowest one among equals; NaN never wins, and column 0 does
/// if there is nothing else. T is BF16 or float. x: [rows, cols], cols >= 1; best: [rows]. One block a row: few rows
/// leave most of a device idle, which a decoding step can afford. Reads sizeof(T) bytes an element.
template <class T>
void argmax(DeviceRows<const T> x, std::int32_t* best, std::int64_t rows, std::int64_t cols, Stream stream);

}  // namespace lomu::cuda

// Dropout on an adapter's input and, in backward, on its gradient. No mask is stored: kernels/dropout.h computes it
// from the element's place, and the device takes the same elements to the bit.
//
// Bound by memory; the mask costs three 64-bit products an element, which hide under it.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"
#include "kernels/ops.h"

namespace lomu::cuda {

/// y = x / (1 - p) where kept, else 0. T is BF16 or float. x, y: [rows, cols]; y may be x.
template <class T>
void dropout_rows(const Dropout& dropout, DeviceRows<const T> x, DeviceRows<T> y, std::int64_t rows, std::int64_t cols,
                  Stream stream);

/// y += x / (1 - p) where kept, all in float32: the gradient that comes back through an adapter joins the rest.
void add_dropped_rows(const Dropout& dropout, DeviceRows<const float> x, DeviceRows<float> y, std::int64_t rows,
                      std::int64_t cols, Stream stream);

}  // namespace lomu::cuda

// What follows a matrix product whose result is float32: bias, residual and rounding to the type of y.
//
// Bound by memory: every operand moves once. Products that can do this themselves (a bias epilogue, beta = 1) should.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// y = c + bias + residual, rounded once. T is BF16 or float. c, residual, y: [rows, cols]; bias: [cols]. bias and
/// residual.data may be null; y may be residual, and c if T is float.
template <class T>
void finish_product(DeviceRows<const float> c, const float* bias, DeviceRows<const float> residual, DeviceRows<T> y,
                    std::int64_t rows, std::int64_t cols, Stream stream);

}  // namespace lomu::cuda

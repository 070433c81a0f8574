// RMSNorm of the residual stream, forward and backward. Norms of single heads are in head_norm.h. Weights are frozen,
// so backward gives no gradient for them. Contracts: Ops::rms_norm and Ops::rms_norm_backward in kernels/ops.h.
//
// Both are bound by memory and read their inputs once: a row of up to 4096 columns stays in the registers of its block,
// the rest of a longer one is read again from the L1 cache.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// y = x / sqrt(mean(x^2) + eps) * weight, row by row; T is BF16 or float. x, y: [rows, cols]; weight: [cols].
/// Moves 4 + sizeof(T) bytes an element.
template <class T>
void rms_norm(DeviceRows<const float> x, const float* weight, double eps, DeviceRows<T> y, std::int64_t rows,
              std::int64_t cols, Stream stream);

/// dx += gradient with respect to x. dy, x, dx: [rows, cols]. Moves 12 + sizeof(T) bytes an element.
template <class T>
void rms_norm_backward(DeviceRows<const T> dy, DeviceRows<const float> x, const float* weight, double eps,
                       DeviceRows<float> dx, std::int64_t rows, std::int64_t cols, Stream stream);

}  // namespace lomu::cuda

// RMSNorm of every head by itself, as Qwen3 does to queries and keys, forward and backward. Contracts: Ops::head_norm
// and Ops::head_norm_backward in kernels/ops.h. The matrices may be column slices of q|k|v.
//
// Bound by memory: each element is read once, by a group of 1 to 32 lanes that holds a whole head.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// The largest head size that the two functions take.
inline constexpr std::int64_t kMaxNormedHead = 256;

/// y = norm of every head of x. T is BF16 or float. x, y: [rows, heads * head_dim]; weight: [head_dim]; y may be x.
/// Moves 2 sizeof(T) bytes an element. Throws UnsupportedError for head_dim > kMaxNormedHead.
template <class T>
void head_norm(DeviceRows<const T> x, const float* weight, double eps, DeviceRows<T> y, std::int64_t rows,
               std::int64_t heads, std::int64_t head_dim, Stream stream);

/// Replaces dy by the gradient with respect to x, in place. Moves 3 sizeof(T) bytes an element. Throws as above.
template <class T>
void head_norm_backward(DeviceRows<const T> x, const float* weight, double eps, DeviceRows<T> dy, std::int64_t rows,
                        std::int64_t heads, std::int64_t head_dim, Stream stream);

}  // namespace lomu::cuda

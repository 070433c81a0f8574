// h = silu(gate) * up and its gradient. Contracts: Ops::swiglu and Ops::swiglu_backward in kernels/ops.h.
//
// Bound by memory: 3 sizeof(T) bytes for each element of h forward, 5 backward; nothing is reused.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// T is BF16 or float. gate_up: [rows, 2 width], gate first; h: [rows, width].
template <class T>
void swiglu(DeviceRows<const T> gate_up, DeviceRows<T> h, std::int64_t rows, std::int64_t width, Stream stream);

/// dh: [rows, width]; gate_up, d_gate_up: [rows, 2 width]; d_gate_up may be gate_up.
template <class T>
void swiglu_backward(DeviceRows<const T> dh, DeviceRows<const T> gate_up, DeviceRows<T> d_gate_up, std::int64_t rows,
                     std::int64_t width, Stream stream);

}  // namespace lomu::cuda

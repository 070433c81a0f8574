// Rotary position embedding, in place; the inverse rotation is also the gradient. Contract: Ops::rope in kernels/ops.h.
// The tables are computed on the host, where all scalings of RoPE live.
//
// Bound by memory: 2 sizeof(T) bytes an element, and the tables once for every two heads, from the L1 or L2 cache.
// Queries and keys that lie side by side are one call with the heads of both.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// Rotates each head's halves (x1, x2) to (x1 cos - x2 sin, x2 cos + x1 sin), or back if `inverse`. T is BF16 or float.
/// x: [rows, heads * head_dim] with an even head_dim; positions: [rows] on the device, each a row of the tables; cos,
/// sin: [positions, head_dim / 2].
template <class T>
void rope(DeviceRows<T> x, const std::int32_t* positions, DeviceRows<const float> cos, DeviceRows<const float> sin,
          bool inverse, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, Stream stream);

}  // namespace lomu::cuda

#include "kernels/cuda/row_access.h"
#include "kernels/cuda/swiglu.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kMaxThreads = 256;

// The full-precision exponential: these kernels wait for memory, and __expf loses digits as |x| grows.
__device__ inline float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads) swiglu_kernel(DeviceRows<const T> gate_up, DeviceRows<T> h, int width) {
  const int col = own_column();
  if (col >= width) return;
  const T* row = gate_up.data + blockIdx.x * gate_up.ld;
  float gate[kPiece], up[kPiece];
  load_piece<Wide>(row, col, width, gate);
  load_piece<Wide>(row + width, col, width, up);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) up[i] *= gate[i] * sigmoid(gate[i]);
  store_piece<Wide>(h.data + blockIdx.x * h.ld, col, width, up);
}

// silu(x) = x s with s = sigmoid(x), so silu'(x) = s (1 + x (1 - s)). 1 - s is sigmoid(-x), which does not cancel.
template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads)
    swiglu_backward_kernel(DeviceRows<const T> dh, DeviceRows<const T> gate_up, DeviceRows<T> d_gate_up, int width) {
  const int col = own_column();
  if (col >= width) return;
  const T* row = gate_up.data + blockIdx.x * gate_up.ld;
  float gate[kPiece], up[kPiece], d[kPiece];
  load_piece<Wide>(row, col, width, gate);
  load_piece<Wide>(row + width, col, width, up);
  load_piece<Wide>(dh.data + blockIdx.x * dh.ld, col, width, d);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    const float s = sigmoid(gate[i]);
    const float d_gate = d[i] * up[i] * s * (1.0f + gate[i] * sigmoid(-gate[i]));
    up[i] = d[i] * gate[i] * s;
    gate[i] = d_gate;
  }
  T* to = d_gate_up.data + blockIdx.x * d_gate_up.ld;
  store_piece<Wide>(to, col, width, gate);
  store_piece<Wide>(to + width, col, width, up);
}

}  // namespace

template <class T>
void swiglu(DeviceRows<const T> gate_up, DeviceRows<T> h, std::int64_t rows, std::int64_t width, Stream stream) {
  if (rows == 0 || width == 0) return;
  using E = Element<T>;
  const bool wide = are_wide(gate_up, h) && width % kPiece == 0;
  launch(wide ? swiglu_kernel<true, E> : swiglu_kernel<false, E>, thread_per_piece(rows, width, stream),
         element_rows(gate_up), element_rows(h), static_cast<int>(width));
}

template <class T>
void swiglu_backward(DeviceRows<const T> dh, DeviceRows<const T> gate_up, DeviceRows<T> d_gate_up, std::int64_t rows,
                     std::int64_t width, Stream stream) {
  if (rows == 0 || width == 0) return;
  using E = Element<T>;
  const bool wide = are_wide(dh, gate_up, d_gate_up) && width % kPiece == 0;
  launch(wide ? swiglu_backward_kernel<true, E> : swiglu_backward_kernel<false, E>,
         thread_per_piece(rows, width, stream), element_rows(dh), element_rows(gate_up), element_rows(d_gate_up),
         static_cast<int>(width));
}

template void swiglu(DeviceRows<const BF16>, DeviceRows<BF16>, std::int64_t, std::int64_t, Stream);
template void swiglu(DeviceRows<const float>, DeviceRows<float>, std::int64_t, std::int64_t, Stream);
template void swiglu_backward(DeviceRows<const BF16>, DeviceRows<const BF16>, DeviceRows<BF16>, std::int64_t,
                              std::int64_t, Stream);
template void swiglu_backward(DeviceRows<const float>, DeviceRows<const float>, DeviceRows<float>, std::int64_t,
                              std::int64_t, Stream);

}  // namespace lomu::cuda

#include "kernels/cuda/reduce.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/row_access.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kMaxThreads = 256;
constexpr int kHeld = 2;  // pieces of a row that a thread keeps in registers between the sum and the result
constexpr int kMaxWarps = kMaxThreads / 32;

struct Row {
  int first, stride, cols;  // a thread's columns are first, first + stride, ..., eight each
};
__device__ inline Row own_columns(int cols) {
  return {static_cast<int>(threadIdx.x) * kPiece, static_cast<int>(blockDim.x) * kPiece, cols};
}

__device__ inline float squares(const float (&x)[kPiece]) {
  float sum = 0.0f;
#pragma unroll
  for (const float v : x) sum = fmaf(v, v, sum);
  return sum;
}

template <bool Wide, class T>
__device__ inline void store_normalised(const float (&x)[kPiece], float inverse, const float* weight, T* y, int col,
                                        int cols) {
  float w[kPiece], result[kPiece];
  load_piece<Wide>(weight, col, cols, w);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) result[i] = x[i] * inverse * w[i];
  store_piece<Wide>(y, col, cols, result);
}

template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads)
    rms_norm_kernel(DeviceRows<const float> x, const float* __restrict__ weight, float eps, DeviceRows<T> y, int cols) {
  auto* slots = SharedArena().take<float>(kMaxWarps);
  const Row own = own_columns(cols);
  const float* from = x.data + blockIdx.x * x.ld;
  T* to = y.data + blockIdx.x * y.ld;

  float held[kHeld][kPiece], sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    load_piece<Wide>(from, own.first + i * own.stride, cols, held[i]);
    sum += squares(held[i]);
  }
  for (int col = own.first + kHeld * own.stride; col < cols; col += own.stride) {
    float v[kPiece];
    load_piece<Wide>(from, col, cols, v);
    sum += squares(v);
  }
  const float inverse = rsqrtf(block_reduce(sum, slots, Add()) / static_cast<float>(cols) + eps);

#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    store_normalised<Wide>(held[i], inverse, weight, to, own.first + i * own.stride, cols);
  }
  for (int col = own.first + kHeld * own.stride; col < cols; col += own.stride) {
    float v[kPiece];
    load_piece<Wide>(from, col, cols, v);
    store_normalised<Wide>(v, inverse, weight, to, col, cols);
  }
}

// What backward needs of one piece: x, and dy times the weight.
struct Piece {
  float x[kPiece], g[kPiece];
  template <bool Wide, class T>
  __device__ void load(const float* from, const T* dy, const float* weight, int col, int cols) {
    float w[kPiece];
    load_piece<Wide>(from, col, cols, x);
    load_piece<Wide>(dy, col, cols, g);
    load_piece<Wide>(weight, col, cols, w);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) g[i] *= w[i];
  }
  __device__ float product() const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) sum = fmaf(g[i], x[i], sum);
    return sum;
  }
  template <bool Wide>
  __device__ void add_gradient(float inverse, float shared, float* dx, int col, int cols) const {
    float d[kPiece];
    load_piece<Wide>(dx, col, cols, d);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) d[i] += inverse * g[i] - shared * x[i];
    store_piece<Wide>(dx, col, cols, d);
  }
};

// With r = 1 / sqrt(mean(x^2) + eps): dr/dx_j = -r^3 x_j / n, so dx_j = r w_j dy_j - (r^3 / n sum_i w_i dy_i x_i) x_j.
template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads)
    rms_norm_backward_kernel(DeviceRows<const T> dy, DeviceRows<const float> x, const float* __restrict__ weight,
                             float eps, DeviceRows<float> dx, int cols) {
  SharedArena shared;
  auto* slots = shared.take<float>(kMaxWarps);
  auto* product_slots = shared.take<float>(kMaxWarps);
  const Row own = own_columns(cols);
  const float* from = x.data + blockIdx.x * x.ld;
  const T* gradient = dy.data + blockIdx.x * dy.ld;
  float* to = dx.data + blockIdx.x * dx.ld;

  Piece held[kHeld];
  float sum = 0.0f, product = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    held[i].template load<Wide>(from, gradient, weight, own.first + i * own.stride, cols);
    sum += squares(held[i].x);
    product += held[i].product();
  }
  for (int col = own.first + kHeld * own.stride; col < cols; col += own.stride) {
    Piece p;
    p.load<Wide>(from, gradient, weight, col, cols);
    sum += squares(p.x);
    product += p.product();
  }
  const float n = static_cast<float>(cols);
  const float inverse = rsqrtf(block_reduce(sum, slots, Add()) / n + eps);
  const float factor = inverse * inverse * inverse * (block_reduce(product, product_slots, Add()) / n);

#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    held[i].template add_gradient<Wide>(inverse, factor, to, own.first + i * own.stride, cols);
  }
  for (int col = own.first + kHeld * own.stride; col < cols; col += own.stride) {
    Piece p;
    p.load<Wide>(from, gradient, weight, col, cols);
    p.add_gradient<Wide>(inverse, factor, to, col, cols);
  }
}

// As many warps as the row fills with kHeld pieces a thread.
Launch block_per_row(std::int64_t rows, std::int64_t cols, int sums, Stream stream) {
  const std::int64_t warps = ceil_div(cols, 32 * kPiece * kHeld);
  const auto threads = static_cast<unsigned>(32 * (warps < kMaxWarps ? warps : kMaxWarps));
  return {static_cast<unsigned>(rows), threads, static_cast<std::size_t>(sums) * SharedArena::bytes<float>(kMaxWarps),
          stream};
}

}  // namespace

template <class T>
void rms_norm(DeviceRows<const float> x, const float* weight, double eps, DeviceRows<T> y, std::int64_t rows,
              std::int64_t cols, Stream stream) {
  if (rows == 0 || cols == 0) return;
  using E = Element<T>;
  const auto kernel = are_wide(x, y) && is_aligned16(weight) ? rms_norm_kernel<true, E> : rms_norm_kernel<false, E>;
  launch(kernel, block_per_row(rows, cols, 1, stream), x, weight, static_cast<float>(eps), element_rows(y),
         static_cast<int>(cols));
}

template <class T>
void rms_norm_backward(DeviceRows<const T> dy, DeviceRows<const float> x, const float* weight, double eps,
                       DeviceRows<float> dx, std::int64_t rows, std::int64_t cols, Stream stream) {
  if (rows == 0 || cols == 0) return;
  using E = Element<T>;
  const bool wide = are_wide(dy, x, dx) && is_aligned16(weight);
  const auto kernel = wide ? rms_norm_backward_kernel<true, E> : rms_norm_backward_kernel<false, E>;
  launch(kernel, block_per_row(rows, cols, 2, stream), element_rows(dy), x, weight, static_cast<float>(eps), dx,
         static_cast<int>(cols));
}

template void rms_norm(DeviceRows<const float>, const float*, double, DeviceRows<BF16>, std::int64_t, std::int64_t,
                       Stream);
template void rms_norm(DeviceRows<const float>, const float*, double, DeviceRows<float>, std::int64_t, std::int64_t,
                       Stream);
template void rms_norm_backward(DeviceRows<const BF16>, DeviceRows<const float>, const float*, double,
                                DeviceRows<float>, std::int64_t, std::int64_t, Stream);
template void rms_norm_backward(DeviceRows<const float>, DeviceRows<const float>, const float*, double,
                                DeviceRows<float>, std::int64_t, std::int64_t, Stream);

}  // namespace lomu::cuda

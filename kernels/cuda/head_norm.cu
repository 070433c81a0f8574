#include <string>

#include "kernels/cuda/head_norm.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_access.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kThreads = 128;

struct Heads {
  std::int64_t count;  // of all rows
  int per_row, dim;
};

// The head of this thread's group of kLanes lanes, and the columns in it that are this lane's. Groups beyond the last
// head take part in the shuffles without work.
template <int kLanes>
struct OwnPart {
  std::int64_t row;
  int col, in_head, dim;
  __device__ explicit OwnPart(Heads heads) {
    const std::int64_t head = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
    const bool exists = head < heads.count;
    row = exists ? head / heads.per_row : 0;
    col = exists ? static_cast<int>(head % heads.per_row) * heads.dim : 0;
    dim = exists ? heads.dim : 0;
    in_head = static_cast<int>(threadIdx.x) % kLanes * kPiece;
  }
  template <class T>
  __device__ T* head_of(DeviceRows<T> m) const {
    return m.data + row * m.ld + col;
  }
};

template <int kLanes>
__device__ inline float sum_of_products(const float (&a)[kPiece], const float (&b)[kPiece]) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPiece; ++i) sum = fmaf(a[i], b[i], sum);
  return warp_reduce<kLanes>(sum, Add());
}

template <int kLanes, bool Wide, class T>
__global__ void __launch_bounds__(kThreads)
    head_norm_kernel(DeviceRows<const T> x, const float* __restrict__ weight, float eps, DeviceRows<T> y, Heads heads) {
  const OwnPart<kLanes> own(heads);
  float v[kPiece], w[kPiece];
  load_piece<Wide>(own.head_of(x), own.in_head, own.dim, v);
  load_piece<Wide>(weight, own.in_head, own.dim, w);
  const float inverse = rsqrtf(sum_of_products<kLanes>(v, v) / static_cast<float>(heads.dim) + eps);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) v[i] *= inverse * w[i];
  store_piece<Wide>(own.head_of(y), own.in_head, own.dim, v);
}

// The formula is derived in rms_norm.cu.
template <int kLanes, bool Wide, class T>
__global__ void __launch_bounds__(kThreads)
    head_norm_backward_kernel(DeviceRows<const T> x, const float* __restrict__ weight, float eps, DeviceRows<T> dy,
                              Heads heads) {
  const OwnPart<kLanes> own(heads);
  float v[kPiece], g[kPiece], w[kPiece];
  load_piece<Wide>(own.head_of(x), own.in_head, own.dim, v);
  load_piece<Wide>(own.head_of(dy), own.in_head, own.dim, g);
  load_piece<Wide>(weight, own.in_head, own.dim, w);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) g[i] *= w[i];
  const float n = static_cast<float>(heads.dim);
  const float inverse = rsqrtf(sum_of_products<kLanes>(v, v) / n + eps);
  const float factor = inverse * inverse * inverse * (sum_of_products<kLanes>(g, v) / n);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) g[i] = inverse * g[i] - factor * v[i];
  store_piece<Wide>(own.head_of(dy), own.in_head, own.dim, g);
}

// Calls f(lanes, wide), both integral constants, with the fewest lanes that hold a head.
template <class F>
void with_layout(std::int64_t head_dim, bool wide, F f) {
  const auto with_lanes = [&](auto lanes) {
    if (wide) return f(lanes, std::true_type());
    f(lanes, std::false_type());
  };
  if (head_dim <= 8 * kPiece) return with_lanes(std::integral_constant<int, 8>());
  if (head_dim <= 16 * kPiece) return with_lanes(std::integral_constant<int, 16>());
  with_lanes(std::integral_constant<int, 32>());
}

Heads checked_heads(std::int64_t rows, std::int64_t heads, std::int64_t head_dim) {
  if (head_dim > kMaxNormedHead) {
    throw UnsupportedError(
        "a norm of heads of size " + std::to_string(head_dim) + " is not supported", "head_norm",
        "the largest head size on a GPU is " + std::to_string(kMaxNormedHead) + "; device: cpu takes any");
  }
  return {rows * heads, static_cast<int>(heads), static_cast<int>(head_dim)};
}

Launch group_per_head(Heads heads, int lanes, Stream stream) {
  return {static_cast<unsigned>(ceil_div(heads.count * lanes, kThreads)), kThreads, 0, stream};
}

}  // namespace

template <class T>
void head_norm(DeviceRows<const T> x, const float* weight, double eps, DeviceRows<T> y, std::int64_t rows,
               std::int64_t heads, std::int64_t head_dim, Stream stream) {
  const Heads all = checked_heads(rows, heads, head_dim);
  if (all.count == 0) return;
  const bool wide = are_wide(x, y) && is_aligned16(weight) && head_dim % kPiece == 0;
  with_layout(head_dim, wide, [&](auto lanes, auto is_wide) {
    launch(head_norm_kernel<lanes(), is_wide(), Element<T>>, group_per_head(all, lanes(), stream), element_rows(x),
           weight, static_cast<float>(eps), element_rows(y), all);
  });
}

template <class T>
void head_norm_backward(DeviceRows<const T> x, const float* weight, double eps, DeviceRows<T> dy, std::int64_t rows,
                        std::int64_t heads, std::int64_t head_dim, Stream stream) {
  const Heads all = checked_heads(rows, heads, head_dim);
  if (all.count == 0) return;
  const bool wide = are_wide(x, dy) && is_aligned16(weight) && head_dim % kPiece == 0;
  with_layout(head_dim, wide, [&](auto lanes, auto is_wide) {
    launch(head_norm_backward_kernel<lanes(), is_wide(), Element<T>>, group_per_head(all, lanes(), stream),
           element_rows(x), weight, static_cast<float>(eps), element_rows(dy), all);
  });
}

template void head_norm(DeviceRows<const BF16>, const float*, double, DeviceRows<BF16>, std::int64_t, std::int64_t,
                        std::int64_t, Stream);
template void head_norm(DeviceRows<const float>, const float*, double, DeviceRows<float>, std::int64_t, std::int64_t,
                        std::int64_t, Stream);
template void head_norm_backward(DeviceRows<const BF16>, const float*, double, DeviceRows<BF16>, std::int64_t,
                                 std::int64_t, std::int64_t, Stream);
template void head_norm_backward(DeviceRows<const float>, const float*, double, DeviceRows<float>, std::int64_t,
                                 std::int64_t, std::int64_t, Stream);

}  // namespace lomu::cuda

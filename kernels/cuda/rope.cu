#include "kernels/cuda/rope.h"
#include "kernels/cuda/row_access.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kThreads = 256;
constexpr int kHeadsPerThread = 2;  // share one read of the tables, and are in flight together

struct Shape {
  std::int64_t threads;  // rows * ceil(heads / kHeadsPerThread) * pieces
  int heads, half, pieces;
};

// A thread rotates the same eight pairs in up to two neighbouring heads of a row.
template <bool Wide, class T>
__global__ void __launch_bounds__(kThreads, 2)
    rope_kernel(DeviceRows<T> x, const std::int32_t* __restrict__ positions, DeviceRows<const float> cos_table,
                DeviceRows<const float> sin_table, float sign, Shape shape) {
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= shape.threads) return;
  const int col = static_cast<int>(thread % shape.pieces) * kPiece;
  const std::int64_t group = thread / shape.pieces;
  const int groups = ceil_div(shape.heads, kHeadsPerThread);
  const std::int64_t row = group / groups;
  const int first_head = static_cast<int>(group % groups) * kHeadsPerThread;

  float c[kPiece], s[kPiece];
  load_piece<Wide>(cos_table.data + positions[row] * cos_table.ld, col, shape.half, c);
  load_piece<Wide>(sin_table.data + positions[row] * sin_table.ld, col, shape.half, s);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) s[i] *= sign;

  T* heads = x.data + row * x.ld + static_cast<std::int64_t>(first_head) * 2 * shape.half;
  const int stride = 2 * shape.half, count = min(kHeadsPerThread, shape.heads - first_head);
  float first[kHeadsPerThread][kPiece], second[kHeadsPerThread][kPiece];
#pragma unroll
  for (int h = 0; h < kHeadsPerThread; ++h) {
    if (h >= count) break;
    load_piece<Wide>(heads + h * stride, col, shape.half, first[h]);
    load_piece<Wide>(heads + h * stride + shape.half, col, shape.half, second[h]);
  }
#pragma unroll
  for (int h = 0; h < kHeadsPerThread; ++h) {
    if (h >= count) break;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      const float rotated = first[h][i] * c[i] - second[h][i] * s[i];
      second[h][i] = second[h][i] * c[i] + first[h][i] * s[i];
      first[h][i] = rotated;
    }
    store_piece<Wide>(heads + h * stride, col, shape.half, first[h]);
    store_piece<Wide>(heads + h * stride + shape.half, col, shape.half, second[h]);
  }
}

}  // namespace

template <class T>
void rope(DeviceRows<T> x, const std::int32_t* positions, DeviceRows<const float> cos, DeviceRows<const float> sin,
          bool inverse, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, Stream stream) {
  const std::int64_t half = head_dim / 2, pieces = ceil_div(half, kPiece);
  const Shape shape{rows * ceil_div(heads, kHeadsPerThread) * pieces, static_cast<int>(heads), static_cast<int>(half),
                    static_cast<int>(pieces)};
  if (shape.threads == 0) return;
  using E = Element<T>;
  const bool wide = are_wide(x, cos, sin) && half % kPiece == 0;
  const auto blocks = static_cast<unsigned>(ceil_div(shape.threads, kThreads));
  launch(wide ? rope_kernel<true, E> : rope_kernel<false, E>, {blocks, kThreads, 0, stream}, element_rows(x), positions,
         cos, sin, inverse ? -1.0f : 1.0f, shape);
}

template void rope(DeviceRows<BF16>, const std::int32_t*, DeviceRows<const float>, DeviceRows<const float>, bool,
                   std::int64_t, std::int64_t, std::int64_t, Stream);
template void rope(DeviceRows<float>, const std::int32_t*, DeviceRows<const float>, DeviceRows<const float>, bool,
                   std::int64_t, std::int64_t, std::int64_t, Stream);

}  // namespace lomu::cuda

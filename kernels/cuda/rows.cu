#include "kernels/cuda/row_access.h"
#include "kernels/cuda/rows.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kMaxThreads = 256;

template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads)
    embed_kernel(DeviceRows<const T> table, const std::int32_t* __restrict__ ids, DeviceRows<float> out, int cols) {
  const int col = own_column();
  if (col >= cols) return;
  float x[kPiece];
  load_piece<Wide>(table.data + ids[blockIdx.x] * table.ld, col, cols, x);
  store_piece<Wide>(out.data + blockIdx.x * out.ld, col, cols, x);
}

// Eight elements as they are: through float, the payload of a NaN would change.
template <bool Wide, class T>
__device__ inline void copy_piece(const T* from, T* to, int col, int cols) {
  if (Wide && col + kPiece <= cols) {
    constexpr int kStep = 16 / sizeof(T);
#pragma unroll
    for (int i = 0; i < kPiece; i += kStep) store16(to + col + i, load16(from + col + i));
  } else {
    for (int i = col; i < col + kPiece && i < cols; ++i) to[i] = from[i];
  }
}

template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads)
    gather_kernel(DeviceRows<const T> x, const std::int32_t* __restrict__ numbers, DeviceRows<T> y, int cols) {
  const int col = own_column();
  if (col < cols) {
    copy_piece<Wide>(x.data + numbers[blockIdx.x] * x.ld, y.data + blockIdx.x * y.ld, col, cols);
  }
}

template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads)
    scatter_kernel(DeviceRows<const T> y, const std::int32_t* __restrict__ numbers, DeviceRows<T> x, int cols) {
  const int col = own_column();
  if (col < cols) {
    copy_piece<Wide>(y.data + blockIdx.x * y.ld, x.data + numbers[blockIdx.x] * x.ld, col, cols);
  }
}

template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads) clear_kernel(DeviceRows<T> x, int cols) {
  const int col = own_column();
  const float zeros[kPiece] = {};
  if (col < cols) store_piece<Wide>(x.data + blockIdx.x * x.ld, col, cols, zeros);
}

}  // namespace

template <class T>
void embed(DeviceRows<const T> table, const std::int32_t* ids, DeviceRows<float> out, std::int64_t rows,
           std::int64_t cols, Stream stream) {
  if (rows == 0 || cols == 0) return;
  using E = Element<T>;
  launch(are_wide(table, out) ? embed_kernel<true, E> : embed_kernel<false, E>, thread_per_piece(rows, cols, stream),
         element_rows(table), ids, out, static_cast<int>(cols));
}

template <class T>
void gather_rows(DeviceRows<const T> x, const std::int32_t* numbers, DeviceRows<T> y, std::int64_t rows,
                 std::int64_t cols, Stream stream) {
  if (rows == 0 || cols == 0) return;
  using E = Element<T>;
  launch(are_wide(x, y) ? gather_kernel<true, E> : gather_kernel<false, E>, thread_per_piece(rows, cols, stream),
         element_rows(x), numbers, element_rows(y), static_cast<int>(cols));
}

template <class T>
void scatter_rows(DeviceRows<const T> y, const std::int32_t* numbers, DeviceRows<T> x, std::int64_t rows,
                  std::int64_t x_rows, std::int64_t cols, Stream stream) {
  clear_rows(x, x_rows, cols, stream);
  if (rows == 0 || cols == 0) return;
  using E = Element<T>;
  launch(are_wide(y, x) ? scatter_kernel<true, E> : scatter_kernel<false, E>, thread_per_piece(rows, cols, stream),
         element_rows(y), numbers, element_rows(x), static_cast<int>(cols));
}

template <class T>
void clear_rows(DeviceRows<T> x, std::int64_t rows, std::int64_t cols, Stream stream) {
  if (rows == 0 || cols == 0) return;
  using E = Element<T>;
  launch(are_wide(x) ? clear_kernel<true, E> : clear_kernel<false, E>, thread_per_piece(rows, cols, stream),
         element_rows(x), static_cast<int>(cols));
}

template void embed(DeviceRows<const BF16>, const std::int32_t*, DeviceRows<float>, std::int64_t, std::int64_t, Stream);
template void embed(DeviceRows<const float>, const std::int32_t*, DeviceRows<float>, std::int64_t, std::int64_t,
                    Stream);
template void gather_rows(DeviceRows<const BF16>, const std::int32_t*, DeviceRows<BF16>, std::int64_t, std::int64_t,
                          Stream);
template void gather_rows(DeviceRows<const float>, const std::int32_t*, DeviceRows<float>, std::int64_t, std::int64_t,
                          Stream);
template void scatter_rows(DeviceRows<const BF16>, const std::int32_t*, DeviceRows<BF16>, std::int64_t, std::int64_t,
                           std::int64_t, Stream);
template void scatter_rows(DeviceRows<const float>, const std::int32_t*, DeviceRows<float>, std::int64_t, std::int64_t,
                           std::int64_t, Stream);
template void clear_rows(DeviceRows<BF16>, std::int64_t, std::int64_t, Stream);
template void clear_rows(DeviceRows<float>, std::int64_t, std::int64_t, Stream);

}  // namespace lomu::cuda

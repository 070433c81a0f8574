#include "kernels/cuda/epilogue.h"
#include "kernels/cuda/row_access.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kMaxThreads = 256;

template <bool Wide, class T>
__global__ void __launch_bounds__(kMaxThreads)
    finish_kernel(DeviceRows<const float> c, const float* bias, DeviceRows<const float> residual, DeviceRows<T> y,
                  int cols) {
  const int col = own_column();
  if (col >= cols) return;
  float sum[kPiece], term[kPiece];
  load_piece<Wide>(c.data + blockIdx.x * c.ld, col, cols, sum);
  if (bias != nullptr) {
    load_piece<Wide>(bias, col, cols, term);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) sum[i] += term[i];
  }
  if (residual.data != nullptr) {
    load_piece<Wide>(residual.data + blockIdx.x * residual.ld, col, cols, term);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) sum[i] += term[i];
  }
  store_piece<Wide>(y.data + blockIdx.x * y.ld, col, cols, sum);
}

}  // namespace

template <class T>
void finish_product(DeviceRows<const float> c, const float* bias, DeviceRows<const float> residual, DeviceRows<T> y,
                    std::int64_t rows, std::int64_t cols, Stream stream) {
  if (rows == 0 || cols == 0) return;
  using E = Element<T>;
  const bool wide = are_wide(c, y) && is_aligned16(bias) && (residual.data == nullptr || are_wide(residual));
  launch(wide ? finish_kernel<true, E> : finish_kernel<false, E>, thread_per_piece(rows, cols, stream), c, bias,
         residual, element_rows(y), static_cast<int>(cols));
}

template void finish_product(DeviceRows<const float>, const float*, DeviceRows<const float>, DeviceRows<BF16>,
                             std::int64_t, std::int64_t, Stream);
template void finish_product(DeviceRows<const float>, const float*, DeviceRows<const float>, DeviceRows<float>,
                             std::int64_t, std::int64_t, Stream);

}  // namespace lomu::cuda

#include "kernels/cuda/dropout_mask.h"
#include "kernels/cuda/dropout_rows.h"
#include "kernels/cuda/row_access.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kMaxThreads = 256;

template <bool Wide, bool Add, class T>
__global__ void __launch_bounds__(kMaxThreads)
    dropout_kernel(DropoutMask mask, DeviceRows<const T> x, DeviceRows<T> y, int cols) {
  const int col = own_column();
  if (col >= cols) return;
  float v[kPiece], sum[kPiece] = {};
  load_piece<Wide>(x.data + blockIdx.x * x.ld, col, cols, v);
  T* to = y.data + blockIdx.x * y.ld;
  if constexpr (Add) load_piece<Wide>(to, col, cols, sum);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) sum[i] += mask.apply(v[i], blockIdx.x, static_cast<std::uint64_t>(col + i));
  store_piece<Wide>(to, col, cols, sum);
}

template <bool Add, class T>
void launch_dropout(const Dropout& dropout, DeviceRows<const T> x, DeviceRows<T> y, std::int64_t rows,
                    std::int64_t cols, Stream stream) {
  if (rows == 0 || cols == 0) return;
  using E = Element<T>;
  launch(are_wide(x, y) ? dropout_kernel<true, Add, E> : dropout_kernel<false, Add, E>,
         thread_per_piece(rows, cols, stream), DropoutMask(dropout.key, dropout.first_row, dropout.p), element_rows(x),
         element_rows(y), static_cast<int>(cols));
}

}  // namespace

template <class T>
void dropout_rows(const Dropout& dropout, DeviceRows<const T> x, DeviceRows<T> y, std::int64_t rows, std::int64_t cols,
                  Stream stream) {
  launch_dropout<false>(dropout, x, y, rows, cols, stream);
}

void add_dropped_rows(const Dropout& dropout, DeviceRows<const float> x, DeviceRows<float> y, std::int64_t rows,
                      std::int64_t cols, Stream stream) {
  launch_dropout<true>(dropout, x, y, rows, cols, stream);
}

template void dropout_rows(const Dropout&, DeviceRows<const BF16>, DeviceRows<BF16>, std::int64_t, std::int64_t,
                           Stream);
template void dropout_rows(const Dropout&, DeviceRows<const float>, DeviceRows<float>, std::int64_t, std::int64_t,
                           Stream);

}  // namespace lomu::cuda

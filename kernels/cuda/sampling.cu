#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_access.h"
#include "kernels/cuda/sampling.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kThreads = 256, kWarps = kThreads / 32;

// A key that orders by value first and prefers low columns among equals; 0 is NaN or nothing. Integers, because a
// maximum of them needs no order to be the same every time.
__device__ inline std::uint64_t order_key(float x, int col) {
  if (!(x == x)) return 0;
  const std::uint32_t u = __float_as_uint(x == 0.0f ? 0.0f : x);  // -0 equals 0
  const std::uint32_t ordered = u >> 31 != 0 ? ~u : u | 0x80000000u;
  return static_cast<std::uint64_t>(ordered) << 32 | ~static_cast<std::uint32_t>(col);
}

struct LargerKey {
  __device__ std::uint64_t operator()(std::uint64_t a, std::uint64_t b) const { return a < b ? b : a; }
};

template <bool Wide, class T>
__global__ void __launch_bounds__(kThreads)
    argmax_kernel(DeviceRows<const T> x, std::int32_t* __restrict__ best, int cols) {
  auto* warps = SharedArena().take<std::uint64_t>(kWarps);
  const T* row = x.data + blockIdx.x * x.ld;
  std::uint64_t own = 0;
  for (int col = static_cast<int>(threadIdx.x) * kPiece; col < cols; col += kThreads * kPiece) {
    float v[kPiece];
    load_piece<Wide>(row, col, cols, v);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      if (col + i < cols) own = LargerKey()(own, order_key(v[i], col + i));
    }
  }
  own = block_reduce(own, warps, LargerKey());
  if (threadIdx.x == 0) best[blockIdx.x] = own == 0 ? 0 : static_cast<std::int32_t>(~static_cast<std::uint32_t>(own));
}

}  // namespace

template <class T>
void argmax(DeviceRows<const T> x, std::int32_t* best, std::int64_t rows, std::int64_t cols, Stream stream) {
  if (rows == 0) return;
  using E = Element<T>;
  launch(are_wide(x) ? argmax_kernel<true, E> : argmax_kernel<false, E>,
         {static_cast<unsigned>(rows), kThreads, SharedArena::bytes<std::uint64_t>(kWarps), stream}, element_rows(x),
         best, static_cast<int>(cols));
}

template void argmax(DeviceRows<const BF16>, std::int32_t*, std::int64_t, std::int64_t, Stream);
template void argmax(DeviceRows<const float>, std::int32_t*, std::int64_t, std::int64_t, Stream);

}  // namespace lomu::cuda

#include "kernels/cuda/finite.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_access.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr std::int64_t kPiecesPerThread = 4;  // before there are as many blocks as slots of scratch

// Two ways to fold a buffer into one number: fold() takes an element, Combine joins two results.
struct SquaresOf {
  using Result = double;
  using Combine = Add;
  __device__ static double start(std::int64_t) { return 0.0; }
  __device__ static double fold(double sum, float x, std::int64_t) {
    return fma(static_cast<double>(x), static_cast<double>(x), sum);
  }
};
struct FirstBadOf {
  using Result = std::int64_t;
  using Combine = Smaller;
  __device__ static std::int64_t start(std::int64_t n) { return n; }
  __device__ static std::int64_t fold(std::int64_t first, float x, std::int64_t i) {
    const bool bad = (__float_as_uint(x) & 0x7f800000u) == 0x7f800000u;
    return bad && i < first ? i : first;
  }
};

// Block b writes slots[b]. The order is the same whether accesses are wide or not.
template <bool Wide, class Fold, class T>
__global__ void __launch_bounds__(kThreads)
    fold_kernel(const T* __restrict__ x, std::int64_t n, typename Fold::Result* __restrict__ slots) {
  auto* warps = SharedArena().take<typename Fold::Result>(kWarps);
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads * kPiece;
  auto own = Fold::start(n);
  for (std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kPiece; at < n;
       at += stride) {
    const int count = n - at < kPiece ? static_cast<int>(n - at) : kPiece;
    float v[kPiece];
    load_piece<Wide>(x + at, 0, count, v);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) own = Fold::fold(own, v[i], at + i);
  }
  own = block_reduce(own, warps, typename Fold::Combine());
  if (threadIdx.x == 0) slots[blockIdx.x] = own;
}

template <class Fold>
__global__ void __launch_bounds__(kThreads) join_kernel(const typename Fold::Result* __restrict__ slots, int count,
                                                        std::int64_t n, typename Fold::Result* __restrict__ result) {
  auto* warps = SharedArena().take<typename Fold::Result>(kWarps);
  const typename Fold::Combine combine;
  auto own = Fold::start(n);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) own = combine(own, slots[i]);
  own = block_reduce(own, warps, combine);
  if (threadIdx.x == 0) *result = own;
}

template <class Fold, class T>
void launch_fold(const T* x, std::int64_t n, typename Fold::Result* scratch, typename Fold::Result* result,
                 Stream stream) {
  using E = Element<T>;
  const std::size_t shared = SharedArena::bytes<typename Fold::Result>(kWarps);
  const std::int64_t wanted = ceil_div(n, kThreads * kPiece * kPiecesPerThread);
  const auto blocks = static_cast<unsigned>(min(wanted, static_cast<std::int64_t>(kFiniteScratch)));
  if (blocks > 0) {
    launch(is_aligned16(x) ? fold_kernel<true, Fold, E> : fold_kernel<false, Fold, E>,
           {blocks, kThreads, shared, stream}, element_ptr(x), n, scratch);
  }
  launch(join_kernel<Fold>, {1, kThreads, shared, stream}, scratch, static_cast<int>(blocks), n, result);
}

}  // namespace

template <class T>
void sum_squares(const T* x, std::int64_t n, double* scratch, double* result, Stream stream) {
  launch_fold<SquaresOf>(x, n, scratch, result, stream);
}

template <class T>
void first_not_finite(const T* x, std::int64_t n, std::int64_t* scratch, std::int64_t* result, Stream stream) {
  launch_fold<FirstBadOf>(x, n, scratch, result, stream);
}

template void sum_squares(const BF16*, std::int64_t, double*, double*, Stream);
template void sum_squares(const float*, std::int64_t, double*, double*, Stream);
template void first_not_finite(const BF16*, std::int64_t, std::int64_t*, std::int64_t*, Stream);
template void first_not_finite(const float*, std::int64_t, std::int64_t*, std::int64_t*, Stream);

}  // namespace lomu::cuda

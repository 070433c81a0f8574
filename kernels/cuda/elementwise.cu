// Bound: memory. Reads and writes every element once (6 bytes for float <-> bf16) in 16-byte accesses, each warp 512
// bytes in a row; nothing is reused, so blocks are small and there are as many as the data asks for.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/gpu.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kThreads = 256;

// Wide: eight elements a thread; else one.
template <bool Wide, class From, class To>
__global__ void __launch_bounds__(kThreads)
    copy_kernel(const From* __restrict__ from, To* __restrict__ to, std::size_t n) {
  const std::size_t thread = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if constexpr (Wide) {
    const std::size_t i = thread * 8;
    if (i + 8 <= n) {
      float x[8];
      load8(from + i, x);
      store8(to + i, x);
    } else {
      for (std::size_t j = i; j < n; ++j) to[j] = from_float<To>(to_float(from[j]));
    }
  } else {
    if (thread < n) to[thread] = from_float<To>(to_float(from[thread]));
  }
}

template <bool Wide>
__global__ void __launch_bounds__(kThreads)
    add_kernel(const float* __restrict__ from, float* __restrict__ into, std::size_t n) {
  const std::size_t thread = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if constexpr (Wide) {
    const std::size_t i = thread * 8;
    if (i + 8 <= n) {
      float x[8], y[8];
      load8(from + i, x);
      load8(into + i, y);
#pragma unroll
      for (int j = 0; j < 8; ++j) y[j] += x[j];
      store8(into + i, y);
    } else {
      for (std::size_t j = i; j < n; ++j) into[j] += from[j];
    }
  } else {
    if (thread < n) into[thread] += from[thread];
  }
}

template <class From, class To>
void launch_copy(const From* from, To* to, std::size_t n, Stream stream) {
  if (n == 0) return;
  const bool wide = is_aligned16(from) && is_aligned16(to);
  const auto kernel = wide ? copy_kernel<true, From, To> : copy_kernel<false, From, To>;
  const std::size_t blocks = ceil_div(n, std::size_t{wide ? 8 * kThreads : kThreads});
  launch(kernel, {static_cast<unsigned>(blocks), kThreads, 0, stream}, from, to, n);
}

}  // namespace

void copy(const float* from, float* to, std::size_t n, Stream stream) {
  launch_copy(from, to, n, stream);
}
void copy(const float* from, BF16* to, std::size_t n, Stream stream) {
  launch_copy(from, element_ptr(to), n, stream);
}
void copy(const BF16* from, float* to, std::size_t n, Stream stream) {
  launch_copy(element_ptr(from), to, n, stream);
}
void copy(const BF16* from, BF16* to, std::size_t n, Stream stream) {
  launch_copy(element_ptr(from), element_ptr(to), n, stream);
}

void add(const float* from, float* into, std::size_t n, Stream stream) {
  if (n == 0) return;
  const bool wide = is_aligned16(from) && is_aligned16(into);
  const std::size_t blocks = ceil_div(n, std::size_t{wide ? 8 * kThreads : kThreads});
  launch(wide ? add_kernel<true> : add_kernel<false>, {static_cast<unsigned>(blocks), kThreads, 0, stream}, from, into,
         n);
}

}  // namespace lomu::cuda

// Bound: memory. Reads each source once and writes the sum once, in 16-byte accesses: 4 (K + 1) bytes an element, where
// pairwise additions in memory would take 12 (K - 1). The value on top of the stack stays in registers, those below it
// in shared memory, each in a slot of its thread alone: so no thread waits for another. Four sources are loaded before
// the first is added, for the latency.
#include <string>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/ordered_add.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kThreads = 128;
constexpr int kWidth = 4;  // floats a thread
constexpr int kAhead = 4;  // sources on their way

struct Four {
  float x[kWidth];
};

__device__ inline Four load(const float* p, std::size_t left) {
  Four v;
  if (left >= kWidth) {
    const Vec16 w = load16(p);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) v.x[j] = __uint_as_float(w.word[j]);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) v.x[j] = static_cast<std::size_t>(j) < left ? p[j] : 0.0f;
  }
  return v;
}

__device__ inline void store(float* p, const Four& v, std::size_t left) {
  if (left >= kWidth) {
    Vec16 w;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) w.word[j] = __float_as_uint(v.x[j]);
    store16(p, w);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      if (static_cast<std::size_t>(j) < left) p[j] = v.x[j];
    }
  }
}

__global__ void __launch_bounds__(kThreads) ordered_add_kernel(const OrderedSource* __restrict__ sources, int count,
                                                               int depth, float* __restrict__ out, std::size_t n) {
  SharedArena arena;
  float* const slots = arena.take<float>(depth * kThreads * kWidth);  // [depth, thread, 4]
  const std::size_t i = (static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (i >= n) return;
  const std::size_t left = n - i;
  Four top{};
  int below = 0;  // values under the top
  for (int first = 0; first < count; first += kAhead) {
    Four next[kAhead];
    std::uint32_t additions[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (first + a >= count) break;
      next[a] = load(sources[first + a].data + i, left);
      additions[a] = sources[first + a].additions;
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (first + a >= count) break;
      if (first + a > 0) {
        store(slots + (below * kThreads + static_cast<int>(threadIdx.x)) * kWidth, top, kWidth);
        ++below;
      }
      top = next[a];
      for (std::uint32_t k = 0; k < additions[a]; ++k) {
        --below;
        const Four under = load(slots + (below * kThreads + static_cast<int>(threadIdx.x)) * kWidth, kWidth);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) top.x[j] = under.x[j] + top.x[j];
      }
    }
  }
  store(out + i, top, left);
}

}  // namespace

void ordered_add(const OrderedSource* sources, int count, int depth, float* out, std::size_t n, Stream stream) {
  if (count < 1 || depth < 1 || depth > kDeepestSum) {
    throw UsageError("an ordered sum of " + std::to_string(count) + " buffers with " + std::to_string(depth) +
                     " values at once");
  }
  if (n == 0) return;
  const std::size_t blocks = ceil_div(n, std::size_t{kThreads * kWidth});
  const std::size_t shared = SharedArena::bytes<float>(depth * kThreads * kWidth);
  launch(ordered_add_kernel, {static_cast<unsigned>(blocks), kThreads, shared, stream}, sources, count, depth, out, n);
}

}  // namespace lomu::cuda

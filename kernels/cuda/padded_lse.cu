// Bound: memory, of which it moves 8 bytes a row and head: next to nothing beside the attention it precedes. Writes are
// whole lines; reads are strided by the heads, and the blocks of the other heads find the rest in the cache.
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/padded_lse.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kThreads = 256;

/// A block takes kThreads rows of one head of one sequence.
__global__ void __launch_bounds__(kThreads)
    pad_lse_kernel(const float* __restrict__ lse, const std::int32_t* __restrict__ offsets,
                   const std::int32_t* __restrict__ lengths, int heads, int max_length, float* __restrict__ padded) {
  const int row = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (row >= max_length) return;
  const int head = static_cast<int>(blockIdx.y);
  const int sequence = static_cast<int>(blockIdx.z);
  float value = 0;
  if (row < lengths[sequence]) value = lse[offsets[sequence] + static_cast<std::int64_t>(row) * heads + head];
  padded[(static_cast<std::int64_t>(sequence) * heads + head) * max_length + row] = value;
}

}  // namespace

void pad_lse(const float* lse, const std::int32_t* offsets, const std::int32_t* lengths, std::int64_t sequences,
             std::int64_t heads, std::int64_t max_length, float* padded, Stream stream) {
  if (sequences == 0 || heads == 0 || max_length == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(max_length, kThreads)), static_cast<unsigned>(heads),
                  static_cast<unsigned>(sequences));
  launch(pad_lse_kernel, {grid, dim3(kThreads), 0, stream}, lse, offsets, lengths, static_cast<int>(heads),
         static_cast<int>(max_length), padded);
}

}  // namespace lomu::cuda

#include "tests/kernels/cuda/emulator_defects.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "kernels/cuda/gpu.h"

namespace lomu {
namespace {

using namespace gpu;

constexpr int kThreads = 64;
constexpr unsigned kAll = ~0u;

/// One block of 64 threads or two of 32, an output of exactly 64 floats that starts as NaN, an input of ones.
struct Bench {
  std::vector<float> in = std::vector<float>(4 * kThreads, 1.0f);
  std::vector<float> out = std::vector<float>(kThreads, std::numeric_limits<float>::quiet_NaN());
  Launch one{1, kThreads, 1024};
  Launch small{1, kThreads, 256};
  Launch two{2, kThreads / 2, 1024};

  void expect_numbers() const {
    for (const float x : out) {
      if (std::isnan(x)) throw WrongResult();
    }
  }
  void expect_rotated() const {
    for (int t = 0; t < kThreads; ++t) {
      if (out[static_cast<std::size_t>(t)] != static_cast<float>((kThreads - t) % kThreads)) throw WrongResult();
    }
  }
};

// ---- races in shared memory ----

// out[t] = (64 - t) % 64, by way of two phases in the same shared memory.
__global__ void rotate(float* out, bool first_barrier, bool second_barrier) {
  auto* s = SharedArena().take<float>(kThreads);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = static_cast<float>(t);
  if (first_barrier) __syncthreads();
  const float v = s[(t + 1) % kThreads];
  if (second_barrier) __syncthreads();
  s[t] = v;
  __syncthreads();
  out[t] = s[kThreads - 1 - t];
}
void run_rotate(bool first_barrier, bool second_barrier) {
  Bench b;
  launch(rotate, b.one, b.out.data(), first_barrier, second_barrier);
  b.expect_rotated();
}

// Neighbouring lanes meet in shared memory; a shuffle aligns them but promises no memory order.
__global__ void swap_neighbours(float* out, bool ordered) {
  auto* s = SharedArena().take<float>(kThreads);
  s[threadIdx.x] = 1;
  if (ordered) __syncwarp();
  const float v = __shfl_xor_sync(kAll, 1.0f, 1);
  out[threadIdx.x] = s[threadIdx.x ^ 1] + v;
}
void run_swap_neighbours(bool ordered) {
  Bench b;
  launch(swap_neighbours, b.one, b.out.data(), ordered);
  b.expect_numbers();
}

// The two warps meet at barrier 1, or only the first does.
__global__ void hand_over(float* out, bool both) {
  auto* s = SharedArena().take<float>(kThreads);
  const int t = static_cast<int>(threadIdx.x);
  if (t < 32) s[t] = s[t + 32] = static_cast<float>(t);
  if (both || t < 32) named_barrier(1, both ? kThreads : 32);
  out[t] = s[t];
}
void run_hand_over(bool both) {
  Bench b;
  launch(hand_over, b.one, b.out.data(), both);
  b.expect_numbers();
}

// ---- barriers that do not meet ----

__global__ void divergent_barrier(int n) {
  if (static_cast<int>(threadIdx.x) < n) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void early_return(int n) {
  if (static_cast<int>(threadIdx.x) < n) __syncthreads();
}
__global__ void shuffle_by_sixteen(unsigned mask, int source) {
  if (threadIdx.x % 32 < 16) __shfl_sync(mask, 1.0f, source);
  __syncthreads();
}
__global__ void named_barrier_of_part(int threads) {
  named_barrier(1, threads);
}
__global__ void mma_by_sixteen() {
  float d[4] = {};
  const std::uint32_t a[4] = {};
  if (threadIdx.x % 32 < 16) mma_bf16(d, a, 0, 0);
  __syncthreads();
}

// ---- accesses out of bounds, of unset memory, misaligned ----

// shift = 1: the last thread writes past `a`, but inside the block's memory.
__global__ void two_pieces(float* out, int shift) {
  SharedArena shared;
  auto* a = shared.take<float>(kThreads);
  auto* b = shared.take<float>(kThreads);
  b[threadIdx.x] = 0;
  a[static_cast<int>(threadIdx.x) + shift] = 1;
  out[threadIdx.x] = b[threadIdx.x];
}
__global__ void write_shifted(float* out) {
  out[threadIdx.x + 1] = 0;
}
__global__ void half_initialised(float* out) {
  auto* s = SharedArena().take<float>(kThreads) + threadIdx.x;
  if (threadIdx.x % 2 != 0) *s = 1;
  out[threadIdx.x] = *s;
}
__global__ void misaligned_load(float* p) {
  store16(p, load16(p + 1));
}
__global__ void misaligned_vector(float4* p) {
  p[1] = p[0];
}
__global__ void deep_stack(float* p, int n) {
  volatile char big[400000];
  while (n-- > 0) big[n] = 1;
  *p = static_cast<float>(big[9]);
}

// ---- cp.async ----

__global__ void copy_in(const float* in, float* out, bool wait) {
  auto* s = SharedArena().take<float>(4 * kThreads);
  copy_async16(s + threadIdx.x * 4, in + threadIdx.x * 4);
  copy_async_commit();
  if (wait) copy_async_wait<0>();
  out[threadIdx.x] = s[threadIdx.x * 4];
  if (!wait) copy_async_wait<0>();
}
void run_copy_in(bool wait) {
  Bench b;
  launch(copy_in, b.one, b.in.data(), b.out.data(), wait);
  b.expect_numbers();
}
__global__ void copy_never_lands(const float* in) {
  auto* s = SharedArena().take<float>(4 * kThreads);
  copy_async16(s + threadIdx.x * 4, in + threadIdx.x * 4);
  copy_async_commit();
}

// ---- races between blocks ----

__global__ void count_up(float* p, bool atomic) {
  if (atomic) {
    atomicAdd(p, 1.0f);
  } else {
    *p += 1;
  }
}
__global__ void overlap(float* p) {
  p[threadIdx.x + blockIdx.x * 16] = 1;
}

// The block that comes last adds up what the others wrote; the fence is what lets it.
__global__ void last_block_sums(float* parts, int* arrived, float* out, bool fence) {
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = 1;
    if (fence) __threadfence();
    if (atomicAdd(arrived, 1) == static_cast<int>(gridDim.x) - 1) {
      if (fence) __threadfence();
      float sum = 0;
      for (unsigned i = 0; i < gridDim.x; ++i) sum += parts[i];
      *out = sum;
    }
  }
}
void run_last_block_sums(bool fence) {
  Bench b;
  int arrived = 0;
  launch(last_block_sums, b.two, b.out.data() + 1, &arrived, b.out.data(), fence);
  if (b.out[0] != 2) throw WrongResult();
}

const Defect kDefects[] = {
    {"correct_rotate", [] { run_rotate(true, true); }},
    {"correct_swap", [] { run_swap_neighbours(true); }},
    {"correct_hand_over", [] { run_hand_over(true); }},
    {"correct_copy", [] { run_copy_in(true); }},
    {"correct_atomic",
     [] {
       Bench b;
       launch(count_up, b.two, b.out.data(), true);
     }},
    {"correct_fence", [] { run_last_block_sums(true); }},
    {"none", [] {}},
    {"missing_barrier", [] { run_rotate(false, true); }},
    {"missing_second_barrier", [] { run_rotate(true, false); }},
    {"shuffle_as_barrier", [] { run_swap_neighbours(false); }},
    {"named_barrier_of_one_side", [] { run_hand_over(false); }},
    {"divergent_barrier", [] { launch(divergent_barrier, Bench().one, 32); }},
    {"early_return", [] { launch(early_return, Bench().one, 40); }},
    {"not_in_mask", [] { launch(shuffle_by_sixteen, Bench().one, 0x000000ffu, 0); }},
    {"mask_too_wide", [] { launch(shuffle_by_sixteen, Bench().one, kAll, 0); }},
    {"inactive_lane", [] { launch(shuffle_by_sixteen, Bench().one, 0x0000ffffu, 20); }},
    {"named_barrier_of_part", [] { launch(named_barrier_of_part, Bench().one, 40); }},
    {"mma_by_sixteen", [] { launch(mma_by_sixteen, Bench().one); }},
    {"shared_bounds",
     [] {
       Bench b;
       launch(two_pieces, b.one, b.out.data(), 1);
     }},
    {"shared_too_much",
     [] {
       Bench b;
       launch(two_pieces, b.small, b.out.data(), 0);
     }},
    {"global_bounds",
     [] {
       Bench b;
       launch(write_shifted, b.one, b.out.data());
     }},
    {"uninitialised",
     [] {
       Bench b;
       launch(half_initialised, b.one, b.out.data());
       b.expect_numbers();
     }},
    {"misaligned_load",
     [] {
       Bench b;
       launch(misaligned_load, b.one, b.out.data());
     }},
    {"misaligned_vector",
     [] {
       Bench b;
       launch(misaligned_vector, b.one, reinterpret_cast<float4*>(b.out.data() + 1));
     }},
    {"stack_overflow",
     [] {
       Bench b;
       launch(deep_stack, b.one, b.out.data(), 400000);
     }},
    {"missing_wait", [] { run_copy_in(false); }},
    {"copy_never_lands",
     [] {
       Bench b;
       launch(copy_never_lands, b.one, b.in.data());
     }},
    {"lost_update",
     [] {
       Bench b;
       launch(count_up, b.two, b.out.data(), false);
     }},
    {"blocks_overlap",
     [] {
       Bench b;
       launch(overlap, b.two, b.out.data());
     }},
    {"missing_fence", [] { run_last_block_sums(false); }},
};

}  // namespace

std::span<const Defect> emulator_defects() {
  return kDefects;
}

void run_defect(const char* name) {
  for (const Defect& defect : emulator_defects()) {
    if (std::string_view(defect.name) == name) return defect.run();
  }
  throw std::out_of_range(name);
}

}  // namespace lomu

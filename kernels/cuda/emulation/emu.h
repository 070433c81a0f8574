// The CUDA language for a host compiler, so that a kernel's source runs, and is tested, on a machine without a GPU.
// Threads of a block are fibers that run until they meet a barrier or a warp collective; blocks run one after another.
// Neither a performance model nor the GPU's memory model. Included by gpu.h alone. What is here is compiled with the
// kernels, so with their sanitizers; the scheduler is not.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "kernels/cuda/emulation/runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
// An empty __shared__ would silently turn a block's array into one array per thread.
#define __shared__ error__take_shared_memory_from_SharedArena
#define __constant__ error__pass_tables_as_parameters
// The last lane to arrive works on all lanes' arguments, which is no race of the kernel's.
#define LOMU_EMU_RESOLVER __attribute__((no_sanitize("thread"), noinline)) static
#define LOMU_EMU_PLACE lomu::emu::Place place = lomu::emu::Place::here()

inline constexpr int warpSize = 32;

namespace lomu::emu {

template <class T>
struct ShuffleLane {
  T value, result;
  int source;
};
template <class T>
LOMU_EMU_RESOLVER void resolve_shuffle(void* const* lanes, unsigned active, Place place) {
  for (int l = 0; l < 32; ++l) {
    if (!(active >> l & 1)) continue;
    auto* own = static_cast<ShuffleLane<T>*>(lanes[l]);
    if (!(active >> own->source & 1)) {
      fail(place, "shuffle: lane %d reads lane %d, which does not take part (active %#x)", l, own->source, active);
    }
    own->result = static_cast<ShuffleLane<T>*>(lanes[own->source])->value;
  }
}
template <class T>
T shuffle(const char* what, unsigned mask, T value, int source, Place place) {
  ShuffleLane<T> arguments{value, value, source};
  warp_collective(what, mask, &arguments, resolve_shuffle<T>, false, place);
  return arguments.result;
}

struct VoteLane {
  unsigned value, ballot, sum;
};
LOMU_EMU_RESOLVER void resolve_vote(void* const* lanes, unsigned active, Place) {
  VoteLane all{};
  for (int l = 0; l < 32; ++l) {
    if (!(active >> l & 1)) continue;
    const auto* lane = static_cast<VoteLane*>(lanes[l]);
    all.sum += lane->value;
    all.ballot |= static_cast<unsigned>(lane->value != 0) << l;
  }
  for (int l = 0; l < 32; ++l) {
    if (active >> l & 1) *static_cast<VoteLane*>(lanes[l]) = all;
  }
}
inline VoteLane vote(const char* what, unsigned mask, unsigned value, Place place) {
  VoteLane arguments{value, 0, 0};
  warp_collective(what, mask, &arguments, resolve_vote, false, place);
  return arguments;
}

/// First lane of the segment of `width` lanes that `lane` belongs to.
inline int segment_of(int lane, int width) {
  return lane & ~(width - 1);
}

}  // namespace lomu::emu

// Barriers and warp collectives.

inline void __syncthreads(LOMU_EMU_PLACE) {
  lomu::emu::barrier(0, static_cast<int>(blockDim.x * blockDim.y * blockDim.z), true, place);
}
inline void __syncwarp(unsigned mask = ~0u, LOMU_EMU_PLACE) {
  lomu::emu::warp_collective("__syncwarp", mask, nullptr, nullptr, true, place);
}
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, LOMU_EMU_PLACE) {
  const int first = lomu::emu::segment_of(lomu::emu::lane(), width);
  return lomu::emu::shuffle("__shfl_sync", mask, v, first | (source & (width - 1)), place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, LOMU_EMU_PLACE) {
  const int own = lomu::emu::lane(), from = own ^ bits;
  const bool later = lomu::emu::segment_of(from, width) > lomu::emu::segment_of(own, width);
  return lomu::emu::shuffle("__shfl_xor_sync", mask, v, later ? own : from, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, LOMU_EMU_PLACE) {
  const int own = lomu::emu::lane(), from = own + static_cast<int>(delta);
  const bool inside = from < lomu::emu::segment_of(own, width) + width;
  return lomu::emu::shuffle("__shfl_down_sync", mask, v, inside ? from : own, place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, LOMU_EMU_PLACE) {
  const int own = lomu::emu::lane(), from = own - static_cast<int>(delta);
  const bool inside = from >= lomu::emu::segment_of(own, width);
  return lomu::emu::shuffle("__shfl_up_sync", mask, v, inside ? from : own, place);
}
inline unsigned __ballot_sync(unsigned mask, int p, LOMU_EMU_PLACE) {
  return lomu::emu::vote("__ballot_sync", mask, p != 0, place).ballot;
}
inline int __any_sync(unsigned mask, int p, LOMU_EMU_PLACE) {
  return lomu::emu::vote("__any_sync", mask, p != 0, place).ballot != 0;
}
inline int __all_sync(unsigned mask, int p, LOMU_EMU_PLACE) {
  return lomu::emu::vote("__all_sync", mask, p == 0, place).ballot == 0;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v, LOMU_EMU_PLACE) {
  return lomu::emu::vote("__reduce_add_sync", mask, v, place).sum;
}

// Memory. Atomics by the builtins with a constant relaxed order: through std::atomic_ref the order may come out
// sequentially consistent, which ThreadSanitizer takes for synchronisation.

template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  T old, next;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do {
    next = old + v;
  } while (!__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  T old, next;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do {
    next = old < v ? v : old;
  } while (!__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  T old;
  __atomic_exchange(p, &v, &old, __ATOMIC_RELAXED);
  return old;
}
inline void __threadfence() {
  lomu::emu::memory_fence();
}
template <class T>
T __ldg(const T* p) {
  return *p;
}

// Arithmetic that the C library lacks. It declares __expf and __logf without exporting them.

extern "C" inline float __expf(float x) noexcept {
  return expf(x);
}
extern "C" inline float __logf(float x) noexcept {
  return logf(x);
}
extern "C" inline float __log2f(float x) noexcept {
  return log2f(x);
}
inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline double rsqrt(double x) {
  return 1.0 / sqrt(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __fadd_rn(float x, float y) {
  return x + y;
}
inline float __fsub_rn(float x, float y) {
  return x - y;
}
inline float __fmul_rn(float x, float y) {
  return x * y;
}
inline float __uint_as_float(unsigned u) {
  return std::bit_cast<float>(u);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline float __int_as_float(int i) {
  return std::bit_cast<float>(i);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

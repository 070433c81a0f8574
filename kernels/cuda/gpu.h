// What a kernel may use beyond the CUDA language itself, in a form that both nvcc and the emulator take: launching,
// shared memory, 16-byte accesses, bfloat16, and one function per PTX instruction. For .cu files only. Kernels write no
// asm, no <<<>>> and no __shared__ themselves; emulation/README.md has the rules and their reasons.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define GPU_PLACE [[maybe_unused]] int place = 0  // where the emulator takes the caller's line
#else
#include "kernels/cuda/emulation/emu.h"
#include "kernels/cuda/emulation/instructions.h"
#include "kernels/cuda/emulation/recording.h"
#define GPU_PLACE LOMU_EMU_PLACE
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"
#include "kernels/error.h"

namespace lomu::gpu {

// ---- launching ----

struct Launch {
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  cuda::Stream stream = nullptr;
};

/// How many pieces of `size` cover n. Both at least 0 and size at least 1.
template <class T>
__host__ __device__ constexpr T ceil_div(T n, std::type_identity_t<T> size) {
  return n / size + (n % size != 0 ? 1 : 0);
}

/// Launches a __global__ function, all of whose template arguments are given; arguments convert to its parameters'
/// types. Throws lomu::Error if the device refuses (in emulation: also for every fault of the kernel).
template <class... P>
void launch(void (*kernel)(P...), const Launch& at, std::type_identity_t<P>... args) {
#ifdef __CUDACC__
  const auto check = [](cudaError_t e) {
    if (e != cudaSuccess) throw Error(cudaGetErrorString(e), "kernel launch", "run `lomu doctor` to see the device");
  };
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (at.shared_bytes > kWithoutAsking) {
    const int bytes = static_cast<int>(at.shared_bytes);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  }
  cudaLaunchConfig_t config{at.grid, at.block, at.shared_bytes, at.stream, nullptr, 0};
  check(cudaLaunchKernelEx(&config, kernel, args...));
#else
  if (emu::Recorded* recorded = emu::recording()) {
    recorded->push_back([=] { launch<P...>(kernel, at, args...); });
    return;
  }
  auto one_thread = [&] { kernel(args...); };
  const auto body = [](void* f) { (*static_cast<decltype(one_thread)*>(f))(); };
  emu::run_grid(at.grid, at.block, at.shared_bytes, body, &one_thread);
#endif
}

// ---- shared memory ----

/// Hands out pieces of the block's dynamic shared memory; every thread takes the same pieces in the same order. On the
/// GPU a piece is a constant offset. In emulation it starts as NaN, is fenced off from its neighbours, and must lie
/// within the size of the launch, which the host sums from bytes<T>(count).
class SharedArena {
 public:
  /// At least 16-byte aligned; the first piece 128.
  template <class T>
  __device__ T* take(int count, GPU_PLACE) {
    const std::size_t at = used_;
    used_ += bytes<T>(count);
#ifdef __CUDACC__
    extern __shared__ __align__(128) unsigned char shared_base[];
    return reinterpret_cast<T*>(shared_base + at);
#else
    return static_cast<T*>(emu::shared_piece(at, static_cast<std::size_t>(count) * sizeof(T), pieces_++, place));
#endif
  }

  template <class T>
  __host__ __device__ static constexpr std::size_t bytes(int count) {
    return (static_cast<std::size_t>(count) * sizeof(T) + 15) / 16 * 16;
  }

 private:
  std::size_t used_ = 0;
  [[maybe_unused]] int pieces_ = 0;
};

// ---- bfloat16 ----

using bf16 = __nv_bfloat16;
static_assert(sizeof(bf16) == sizeof(BF16));

/// The element type inside kernels of a host header's type: BF16 -> bf16, others as they are.
template <class T>
using Element = std::conditional_t<std::is_same_v<std::remove_const_t<T>, BF16>,
                                   std::conditional_t<std::is_const_v<T>, const bf16, bf16>, T>;

/// A host header's device pointer as kernels take it.
template <class T>
Element<T>* element_ptr(T* p) {
  return reinterpret_cast<Element<T>*>(p);
}

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(bf16 x) {
  return __bfloat162float(x);
}

/// To T = float or bf16; the latter rounds to nearest even.
template <class T>
__device__ inline T from_float(float x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

/// Two bf16 in a register: `low` has the lower address and the lower 16 bits.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return static_cast<std::uint32_t>(__bfloat16_as_ushort(v.y)) << 16 | __bfloat16_as_ushort(v.x);
}
__device__ inline float low_bf16(std::uint32_t w) {
  return __uint_as_float(w << 16);
}
__device__ inline float high_bf16(std::uint32_t w) {
  return __uint_as_float(w & 0xffff0000u);
}

/// cvt.f32.f16: the value of an IEEE half with these bits. Exact.
__device__ inline float half_to_float(std::uint16_t bits) {
#ifdef __CUDACC__
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
#else
  return emu::half_to_float(bits);
#endif
}

// ---- 16-byte accesses ----

struct alignas(16) Vec16 {
  std::uint32_t word[4];
};

/// Whether p may go to load16 and its kin.
__host__ __device__ inline bool is_aligned16(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

/// 16 bytes in one access; p is 16-byte aligned (checked in emulation).
template <class T>
__device__ inline Vec16 load16(const T* p, GPU_PLACE) {
#ifndef __CUDACC__
  emu::check_aligned(p, 16, place);
#endif
  return *reinterpret_cast<const Vec16*>(p);
}
template <class T>
__device__ inline void store16(T* p, Vec16 v, GPU_PLACE) {
#ifndef __CUDACC__
  emu::check_aligned(p, 16, place);
#endif
  *reinterpret_cast<Vec16*>(p) = v;
}

/// Eight elements as floats: one access of bf16, two of float. p is 16-byte aligned.
__device__ inline void load8(const bf16* p, float (&x)[8], GPU_PLACE) {
  const Vec16 v = load16(p, place);
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = low_bf16(v.word[i]);
    x[2 * i + 1] = high_bf16(v.word[i]);
  }
}
__device__ inline void load8(const float* p, float (&x)[8], GPU_PLACE) {
  const Vec16 low = load16(p, place), high = load16(p + 4, place);
  for (int i = 0; i < 4; ++i) {
    x[i] = __uint_as_float(low.word[i]);
    x[i + 4] = __uint_as_float(high.word[i]);
  }
}
__device__ inline void store8(bf16* p, const float (&x)[8], GPU_PLACE) {
  Vec16 v;
  for (int i = 0; i < 4; ++i) v.word[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
  store16(p, v, place);
}
__device__ inline void store8(float* p, const float (&x)[8], GPU_PLACE) {
  Vec16 low, high;
  for (int i = 0; i < 4; ++i) {
    low.word[i] = __float_as_uint(x[i]);
    high.word[i] = __float_as_uint(x[i + 4]);
  }
  store16(p, low, place);
  store16(p + 4, high, place);
}

// ---- instructions ----

/// ex2.approx.ftz: 2^x with a relative error below 2^-22; 0 for results below the normal numbers, and for -infinity.
__device__ inline float exp2_approx(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

/// bar.sync: `threads` threads (a multiple of 32) of the block meet at barrier 1 to 15.
__device__ inline void named_barrier(int id, int threads, GPU_PLACE) {
#ifdef __CUDACC__
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
  emu::barrier(id, threads, false, place);
#endif
}

/// cp.async: 16 bytes from global to shared memory, both 16-byte aligned; visible to this thread after the wait, to
/// others after a barrier that follows it. Zeros if !valid; `from` is not read then.
__device__ inline void copy_async16(void* to, const void* from, bool valid = true, GPU_PLACE) {
#ifdef __CUDACC__
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
#else
  emu::begin_copy16(to, from, valid, place);
#endif
}

/// Makes this thread's copies since the last commit a group, which may be empty.
__device__ inline void copy_async_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  ++emu::async_copies().group;
#endif
}

/// Waits until at most `Pending` of this thread's committed groups are in flight.
template <int Pending>
__device__ inline void copy_async_wait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#else
  emu::land_copies(Pending);
#endif
}

/// ldmatrix .x4: four 8x8 matrices of bf16 in shared memory. Lane l names row l % 8 of matrix l / 8 (16 bytes,
/// aligned). It gets in word i the elements (l / 4, 2 (l % 4)) and (l / 4, 2 (l % 4) + 1) of matrix i; if Transposed (2
/// (l % 4), l / 4) and (2 (l % 4) + 1, l / 4).
template <bool Transposed>
__device__ inline void load_matrix_x4(std::uint32_t (&r)[4], const bf16* row, GPU_PLACE) {
#ifdef __CUDACC__
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
#else
  emu::load_matrix_x4<Transposed>(r, row, place);
#endif
}

/// mma.sync m16n8k16: d += a b with bf16 a [16, 16], b [16, 8] and f32 d [16, 8]. With g = lane / 4, t = 2 (lane % 4) a
/// lane holds a: (g, t) (g+8, t) (g, t+8) (g+8, t+8), two columns a word; b: (t, g) (t+8, g), two rows a word;
/// d: (g, t) (g, t+1) (g+8, t) (g+8, t+1).
__device__ inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                                GPU_PLACE) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  emu::mma_bf16(d, a, b0, b1, place);
#endif
}

}  // namespace lomu::gpu

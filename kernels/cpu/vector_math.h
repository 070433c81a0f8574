// Inner loops that GCC turns into vector instructions: conversion between storage and f32, exp, sums and maxima.
// Element-wise unless named otherwise; sums run in a fixed order set at compile time.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "kernels/dtype.h"

namespace lomu::cpu {

inline void widen(const BF16* x, float* y, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = std::bit_cast<float>(static_cast<std::uint32_t>(x[i].bits) << 16);
}
inline void widen(const float* x, float* y, std::int64_t n) {
  std::copy_n(x, n, y);
}

inline void narrow(const float* x, BF16* y, std::int64_t n) {
  std::int64_t i = 0;
#ifdef __AVX512BF16__
  for (; i + 16 <= n; i += 16) {
    const __m256bh packed = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), std::bit_cast<__m256i>(packed));
  }
#endif
  for (; i < n; ++i) y[i] = BF16(x[i]);
}
inline void narrow(const float* x, float* y, std::int64_t n) {
  std::copy_n(x, n, y);
}

/// Row `x` as f32: itself where it is, else widened into `scratch`.
inline const float* as_f32(const float* x, float*, std::int64_t) {
  return x;
}
inline const float* as_f32(const BF16* x, float* scratch, std::int64_t n) {
  widen(x, scratch, n);
  return scratch;
}

/// e^x to 2 ulp, 0 below -87.3, e^88 above 88. Cody-Waite reduction by ln 2 in two parts and a degree-6 polynomial
/// (Taylor coefficients: |r| <= ln2/2 leaves a remainder under 2^-27). Branch-free, so loops over it vectorise.
inline float fast_exp(float x) {
  const float clamped = std::min(std::max(x, -104.0f), 88.0f);
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = (clamped * 1.44269504f + kRound) - kRound;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto exponent = static_cast<std::int32_t>(n) + 127;
  const float scale = std::bit_cast<float>(std::max(exponent, 0) << 23);
  return p * scale;
}

inline float sum(const float* x, std::int64_t n) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

inline float dot(const float* x, const float* y, std::int64_t n) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t i = 0; i < n; ++i) total += x[i] * y[i];
  return total;
}

inline float maximum(const float* x, std::int64_t n) {
  float best = x[0];
#pragma omp simd reduction(max : best)
  for (std::int64_t i = 0; i < n; ++i) best = std::max(best, x[i]);
  return best;
}

}  // namespace lomu::cpu

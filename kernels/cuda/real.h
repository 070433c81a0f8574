// The numbers in which LoRA-Muon computes on a device, under common names: double, and TwoFloat for devices whose
// double is slow. A TwoFloat is the unevaluated sum of two float32 and carries about 45 bits in float32's range. For
// .cu files; not a general multiple-precision library. Sources of the formulas: Dekker 1971; Knuth, TAOCP 2, 4.2.2; Li
// et al. 2002 (LBNL-46996).
#pragma once

#include "kernels/cuda/gpu.h"

namespace lomu::cuda {

struct alignas(8) TwoFloat {
  float high, low;  // |low| <= ulp(high) / 2
};

/// a b rounded, never fused with an addition that follows: the formulas below depend on it.
__device__ inline float rounded_product(float a, float b) {
#ifdef __CUDACC__
  return __fmul_rn(a, b);
#else
  const volatile float p = a * b;
  return p;
#endif
}

/// high + low for |high| >= |low|, and for any two floats.
__device__ inline TwoFloat quick_sum(float high, float low) {
  const float s = high + low;
  return {s, low - (s - high)};
}
__device__ inline TwoFloat exact_sum(float a, float b) {
  const float s = a + b;
  const float t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}

__device__ inline TwoFloat operator-(TwoFloat a) {
  return {-a.high, -a.low};
}
__device__ inline TwoFloat operator+(TwoFloat a, TwoFloat b) {
  TwoFloat s = exact_sum(a.high, b.high);
  const TwoFloat t = exact_sum(a.low, b.low);
  s = quick_sum(s.high, s.low + t.high);
  return quick_sum(s.high, s.low + t.low);
}
__device__ inline TwoFloat operator-(TwoFloat a, TwoFloat b) {
  return a + -b;
}
__device__ inline TwoFloat operator*(TwoFloat a, TwoFloat b) {
  const float p = rounded_product(a.high, b.high);
  const float e = fmaf(a.high, b.high, -p);
  return quick_sum(p, fmaf(a.high, b.low, fmaf(a.low, b.high, e)));
}
__device__ inline TwoFloat operator/(TwoFloat a, TwoFloat b) {
  const float q = a.high / b.high;
  TwoFloat rest = a - b * TwoFloat{q, 0.0f};
  const float q2 = rest.high / b.high;
  rest = rest - b * TwoFloat{q2, 0.0f};
  return TwoFloat{q, q2} + TwoFloat{rest.high / b.high, 0.0f};
}
__device__ inline bool operator>(TwoFloat a, TwoFloat b) {
  return a.high > b.high || (a.high == b.high && a.low > b.low);
}
__device__ inline TwoFloat root(TwoFloat a) {
  if (!(a.high > 0.0f)) return {a.high == 0.0f ? 0.0f : sqrtf(a.high), 0.0f};
  const float x = sqrtf(a.high);
  const TwoFloat rest = a - TwoFloat{x, 0.0f} * TwoFloat{x, 0.0f};
  return quick_sum(x, rest.high / (2.0f * x));
}
__device__ inline double root(double a) {
  return sqrt(a);
}

/// a b + c.
__device__ inline TwoFloat mul_add(TwoFloat a, TwoFloat b, TwoFloat c) {
  return a * b + c;
}
__device__ inline double mul_add(double a, double b, double c) {
  return fma(a, b, c);
}

template <class Real>
__device__ inline Real real(double x) {
  if constexpr (std::is_same_v<Real, double>) {
    return x;
  } else {
    const auto high = static_cast<float>(x);
    return {high, static_cast<float>(x - static_cast<double>(high))};
  }
}
template <class Real>
__device__ inline Real widened(float x) {
  if constexpr (std::is_same_v<Real, double>) {
    return static_cast<double>(x);
  } else {
    return {x, 0.0f};
  }
}
__device__ inline double as_double(double x) {
  return x;
}
__device__ inline double as_double(TwoFloat x) {
  return static_cast<double>(x.high) + static_cast<double>(x.low);
}
__device__ inline float as_float(double x) {
  return static_cast<float>(x);
}
__device__ inline float as_float(TwoFloat x) {
  return x.high;
}
__device__ inline bool is_finite(double x) {
  return x - x == 0.0;
}

/// Whether c^2 > limit a b, that is cos^2 > limit for vectors of squared norms a and b and inner product c.
__device__ inline bool cosine_exceeds(double c, double a, double b, double limit) {
  return c * c > limit * (a * b);
}
__device__ inline bool cosine_exceeds(TwoFloat c, TwoFloat a, TwoFloat b, double limit) {
  return (c.high / a.high) * (c.high / b.high) > static_cast<float>(limit);  // the products themselves would underflow
}

__device__ inline double shuffle_xor(double x, int bits) {
  return __shfl_xor_sync(~0u, x, bits);
}
__device__ inline TwoFloat shuffle_xor(TwoFloat x, int bits) {
  const float high = __shfl_xor_sync(~0u, x.high, bits);
  return {high, __shfl_xor_sync(~0u, x.low, bits)};
}

/// Relative rounding error of one operation; what cos^2 of two vectors may be to count as orthogonal; and the largest
/// power of two by which numbers may safely be scaled.
template <class Real>
inline constexpr double kUnit = 2.220446049250313e-16;
template <>
inline constexpr double kUnit<TwoFloat> = 2.8e-14;
template <class Real>
inline constexpr double kOrthogonal = 1e-24;
template <>
inline constexpr double kOrthogonal<TwoFloat> = 1e-22;
template <class Real>
inline constexpr int kMaxExponent = 400;
template <>
inline constexpr int kMaxExponent<TwoFloat> = 60;

}  // namespace lomu::cuda

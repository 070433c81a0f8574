// Watching numbers: the sum of squares of a buffer, and where its first bad element lies. Both read the buffer once and
// are bound by memory; the order of every sum depends on n alone, so results are the same bits on every device.
//
// A square of a float32 never overflows double, so a finite sum of squares proves all elements finite: look for the bad
// one only when it is not.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"

namespace lomu::cuda {

/// Elements of 8 bytes that the two functions need as scratch.
inline constexpr std::size_t kFiniteScratch = 1024;

/// *result = sum of x[i]^2 in double. T is BF16 or float. Two launches.
template <class T>
void sum_squares(const T* x, std::int64_t n, double* scratch, double* result, Stream stream);

/// *result = the smallest i for which x[i] is infinite or NaN; n if there is none. T is BF16 or float. Two launches.
template <class T>
void first_not_finite(const T* x, std::int64_t n, std::int64_t* scratch, std::int64_t* result, Stream stream);

}  // namespace lomu::cuda

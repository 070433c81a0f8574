// What this machine's matrix products come to at best, to hold a training step against.
#pragma once

#include "kernels/dtype.h"

namespace lomu {

/// Operations a second of `threads` threads that each multiply 1024 x 1024 matrices of their own (`dtype` bf16 or f32,
/// results f32) through oneDNN, in the layout it likes best and with nothing around the product; the median of several
/// repetitions. 1024: large enough to run at full rate, small enough (8 MB) for a server core's share of cache.
/// Throws Error when oneDNN refuses.
double gemm_ceiling(DType dtype, int threads);

}  // namespace lomu

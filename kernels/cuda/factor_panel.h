// How a block of threads walks over a factor: in panels of some rows (of a wide factor: columns), each thread always
// the same groups of four neighbours in memory, through shared memory. Device code of the LoRA-Muon kernels.
#pragma once

#include "kernels/cuda/lora_muon_tables.h"
#include "kernels/cuda/mma_f64.h"

namespace lomu::cuda {

/// The shape of a panel of `Columns` (of the rank, padded) times kRows. In shared memory its lines, rows if tall and
/// columns if wide, lie 4 numbers further apart than they are long: with lines of a multiple of 16 numbers, the 4 x 4
/// numbers that half a warp takes for a product then lie in 16 different banks.
template <int Columns>
struct PanelShape {
  static constexpr int kRows = Columns <= 64 ? 2048 / Columns : Columns == 128 ? 32 : 16;
  static constexpr int kQuads = Columns * kRows / 4 / kThreads;  // of each thread
  static constexpr int kTallPitch = Columns + 4, kWidePitch = kRows + 4;
  static constexpr int kSize = kRows * kTallPitch > Columns* kWidePitch ? kRows* kTallPitch : Columns* kWidePitch;
};

/// Four neighbours in memory.
struct Quad {
  float x[4];
};

/// Where a thread's quad lies: `valid` of its elements exist.
struct QuadPlace {
  std::int64_t offset;  ///< in the factor
  std::int64_t packed;  ///< in its packed copy
  int valid;
};

__device__ inline int clamp4(std::int64_t n) {
  return n < 0 ? 0 : n > 4 ? 4 : static_cast<int>(n);
}

/// Where quad number `quad` of this thread lies in a panel in shared memory.
template <class Shape, int Columns>
__device__ inline int shared_place(const Half& half, int quad) {
  const int number = quad * kThreads + static_cast<int>(threadIdx.x);
  if (half.wide) return number / (Shape::kRows / 4) * Shape::kWidePitch + number % (Shape::kRows / 4) * 4;
  return number / (Columns / 4) * Shape::kTallPitch + number % (Columns / 4) * 4;
}

/// Quad number `quad` of this thread in the panel that begins at row `row` of rows before `end`. Panel columns c <
/// Split are the rank's column0 + c, others column1 + c - Split; columns from the rank on are empty.
template <class Shape, int Columns, int Split = Columns>
__device__ inline QuadPlace place_of(const Half& half, std::int64_t row, int rows, int quad, int column0 = 0,
                                     int column1 = 0) {
  const int number = quad * kThreads + static_cast<int>(threadIdx.x);
  if (half.wide) {
    const int line = number / (Shape::kRows / 4), at = number % (Shape::kRows / 4) * 4;
    const int column = line < Split ? column0 + line : column1 + line - Split;
    return {column * half.length + row + at, column * half.arrays.packed.line_stride + row + at,
            column < half.rank ? clamp4(rows - at) : 0};
  }
  const int line = number / (Columns / 4), at = number % (Columns / 4) * 4;
  const int column = at < Split ? column0 + at : column1 + at - Split;
  return {(row + line) * half.rank + column, (row + line) * half.arrays.packed.line_stride + column,
          line < rows ? clamp4(half.rank - column) : 0};
}

__device__ inline Quad load_quad(const float* from, const QuadPlace& place) {
  Quad q = {};
  const float* p = from + place.offset;
  if (place.valid == 4 && gpu::is_aligned16(p)) {
    const gpu::Vec16 v = gpu::load16(p);
    for (int i = 0; i < 4; ++i) q.x[i] = __uint_as_float(v.word[i]);
  } else {
    for (int i = 0; i < 4; ++i) {
      if (i < place.valid) q.x[i] = p[i];
    }
  }
  return q;
}

__device__ inline void store_quad(float* to, const QuadPlace& place, const Quad& q) {
  float* p = to + place.offset;
  if (place.valid == 4 && gpu::is_aligned16(p)) {
    gpu::Vec16 v;
    for (int i = 0; i < 4; ++i) v.word[i] = __float_as_uint(q.x[i]);
    gpu::store16(p, v);
  } else {
    for (int i = 0; i < 4; ++i) {
      if (i < place.valid) p[i] = q.x[i];
    }
  }
}

/// bf16(multiplier * q) to the packed copy, where there is one.
__device__ inline void store_packed(const PackedFactor& packed, const QuadPlace& place, const Quad& q) {
  if (!packed.data) return;
  auto* p = reinterpret_cast<gpu::bf16*>(packed.data) + place.packed;
  float x[4];
  for (int i = 0; i < 4; ++i) x[i] = packed.multiplier * q.x[i];
  if (place.valid == 4 && reinterpret_cast<std::uintptr_t>(p) % 8 == 0) {
    *reinterpret_cast<uint2*>(p) = make_uint2(gpu::pack_bf16(x[0], x[1]), gpu::pack_bf16(x[2], x[3]));
  } else {
    for (int i = 0; i < 4; ++i) {
      if (i < place.valid) p[i] = gpu::from_float<gpu::bf16>(x[i]);
    }
  }
}

/// The panel in shared memory as a matrix [rows, columns].
template <class Shape, class Real>
__device__ inline Strided<Real> panel_view(const Half& half, const Real* panel) {
  if (half.wide) return {panel, 1, Shape::kWidePitch};
  return {panel, Shape::kTallPitch, 1};
}

/// m' = beta m + gain g; the step follows m', or with Nesterov beta m' + gain g. In double neither is rounded to
/// float32 before it is used: that would be amplified by the condition of the momentum.
template <class Real>
struct MomentumRule {
  Real beta, gain;
  bool nesterov;

  /// A gradient norm that is not finite makes every direction so, and the step refuses it.
  __device__ explicit MomentumRule(const StepRule& rule) : beta(real<Real>(rule.momentum)), nesterov(rule.nesterov) {
    double clip = 1.0;
    if (rule.grad_norm_squared) {
      const double norm = sqrt(*rule.grad_norm_squared);
      const double factor = rule.max_grad_norm / (norm + 1e-6);
      clip = !is_finite(norm) ? norm - norm : factor < 1.0 ? factor : 1.0;
    }
    gain = real<Real>((1.0 - rule.momentum) * clip);
  }
  __device__ Real momentum(float m, float g) const { return mul_add(beta, widened<Real>(m), gain * widened<Real>(g)); }
  __device__ Real direction(Real updated, float g) const {
    return nesterov ? mul_add(beta, updated, gain * widened<Real>(g)) : updated;
  }
};

}  // namespace lomu::cuda

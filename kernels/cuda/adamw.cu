#include "kernels/cuda/adamw.h"
#include "kernels/cuda/flat_tiles.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

struct Constants {
  double beta1, beta2, eps, weight_decay, max_grad_norm;
};

/// What a block of threads reads and writes besides the factors.
struct Tables {
  const FlatHalf* halves;
  const FlatTile* tiles;
  unsigned* count;
  AdamwHalfReport* reports;
  AdamwHalfReport* sums;  ///< of each tile
  int half_count;
};

template <class Real>
struct Rule {
  Real clip, keep, lr, beta1, rest1, beta2, rest2, eps, correction1, correction2_root;
};

template <class Real>
__device__ inline Real square_root(Real x) {
  if constexpr (std::is_same_v<Real, double>) {
    return sqrt(x);
  } else {
    return sqrtf(x);
  }
}

/// `Count` neighbours in memory: 4, or 1 where they are not aligned or not four.
template <int Count, class T>
__device__ inline void load(const float* p, T (&x)[Count]) {
  if constexpr (Count == 4) {
    const Vec16 v = load16(p);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = __uint_as_float(v.word[i]);
  } else {
    x[0] = *p;
  }
}
template <int Count>
__device__ inline void store(float* p, const float (&x)[Count]) {
  if constexpr (Count == 4) {
    Vec16 v;
#pragma unroll
    for (int i = 0; i < 4; ++i) v.word[i] = __float_as_uint(x[i]);
    store16(p, v);
  } else {
    *p = x[0];
  }
}

/// bf16 copies of `Count` elements from number `at` of a factor on; lines may end within them.
template <int Count>
__device__ inline void store_packed(const FlatHalf& half, std::int64_t at, const float (&x)[Count]) {
  const PackedFactor& packed = half.arrays.packed;
  if (!packed.data) return;
  auto* data = reinterpret_cast<bf16*>(packed.data);
  std::int64_t line = at / half.line, column = at % half.line;
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    data[line * packed.line_stride + column] = from_float<bf16>(packed.multiplier * x[i]);
    if (++column == half.line) {
      column = 0;
      ++line;
    }
  }
}

/// Steps `Count` elements from number `at` on; adds the squares of their steps and old values to `squares`.
template <int Count, class Real>
__device__ inline void step_elements(const FlatHalf& half, std::int64_t at, const Rule<Real>& rule,
                                     double (&squares)[2]) {
  const FactorArrays& a = half.arrays;
  Real x[Count], g[Count], first[Count], second[Count];
  load(a.factor + at, x);
  load(a.grad + at, g);
  load(a.first_moment + at, first);
  load(a.second_moment + at, second);
  float new_x[Count], new_first[Count], new_second[Count];
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const Real clipped = rule.clip * g[i];
    const Real average = rule.beta1 * first[i] + rule.rest1 * clipped;
    const Real average_square = rule.beta2 * second[i] + rule.rest2 * clipped * clipped;
    const Real change =
        -rule.lr * (average / rule.correction1) / (square_root(average_square) / rule.correction2_root + rule.eps);
    new_first[i] = static_cast<float>(average);
    new_second[i] = static_cast<float>(average_square);
    new_x[i] = static_cast<float>(rule.keep * x[i] + change);
    squares[0] = fma(static_cast<double>(change), static_cast<double>(change), squares[0]);
    squares[1] = fma(static_cast<double>(x[i]), static_cast<double>(x[i]), squares[1]);
  }
  store(a.factor + at, new_x);
  store(a.first_moment + at, new_first);
  store(a.second_moment + at, new_second);
  store_packed(half, at, new_x);
}

/// min(1, max / (norm + 1e-6)), as PyTorch's clip_grad_norm_; NaN if the norm is not finite.
__device__ inline double clip_factor(double norm_squared, double max_norm) {
  const double norm = sqrt(norm_squared);
  if (norm - norm != 0.0) return norm - norm;
  const double factor = max_norm / (norm + 1e-6);
  return max_norm > 0.0 && factor < 1.0 ? factor : 1.0;
}

template <class Real>
__global__ void __launch_bounds__(kFlatThreads, 3)
    adamw_kernel(Tables tables, Constants constants, const AdamwStep* step, const double* grad_norm_squared) {
  SharedArena shared;
  double* slots = shared.take<double>(2 * kFlatThreads / 32);
  int* last = shared.take<int>(1);
  const FlatTile tile = tables.tiles[blockIdx.x];
  const FlatHalf& half = tables.halves[tile.factor];
  const int thread = static_cast<int>(threadIdx.x);
  const double clip = clip_factor(*grad_norm_squared, constants.max_grad_norm);
  double squares[2] = {};
  if (clip == clip) {
    const Rule<Real> rule{Real(clip),
                          Real(1.0 - step->lr * constants.weight_decay),
                          Real(step->lr),
                          Real(constants.beta1),
                          Real(1.0 - constants.beta1),
                          Real(constants.beta2),
                          Real(1.0 - constants.beta2),
                          Real(constants.eps),
                          Real(step->correction1),
                          Real(step->correction2_root)};
    const FactorArrays& a = half.arrays;
    const bool aligned =
        is_aligned16(a.factor) && is_aligned16(a.grad) && is_aligned16(a.first_moment) && is_aligned16(a.second_moment);
    const int wide = aligned ? tile.count / 4 * 4 : 0;
    for (int i = 4 * thread; i < wide; i += 4 * kFlatThreads) step_elements<4>(half, tile.first + i, rule, squares);
    for (int i = wide + thread; i < tile.count; i += kFlatThreads) {
      step_elements<1>(half, tile.first + i, rule, squares);
    }
  } else {
    squares[0] = squares[1] = clip;
  }
  flat_block_sum(squares, slots);
  if (thread == 0) tables.sums[blockIdx.x] = {squares[0], squares[1]};
  if (last_block(tables.count, last)) {
    for (int i = thread; i < tables.half_count; i += kFlatThreads) {
      AdamwHalfReport sum{0.0, 0.0};
      const int blocks = static_cast<int>(gridDim.x);
      for (int t = first_tile_of(tables.tiles, blocks, i); t < blocks && tables.tiles[t].factor == i; ++t) {
        sum.step_norm_squared += tables.sums[t].step_norm_squared;
        sum.factor_norm_squared += tables.sums[t].factor_norm_squared;
      }
      tables.reports[i] = sum;
    }
  }
}

}  // namespace

AdamwPlan::AdamwPlan(std::span<const PairDesc> pairs, const AdamwOptions& options)
    : options_(options), halves_(2 * pairs.size()) {
  check_adamw(pairs, options);
  const FlatTables tables = flat_tables(pairs);
  tiles_ = tables.tiles.size();
  tiles_offset_ = tables.tiles_offset();
  table_ = tables.image();
  reports_offset_ = 16;  // after the count of blocks
  sums_offset_ = reports_offset_ + halves_ * sizeof(AdamwHalfReport);
  workspace_bytes_ = sums_offset_ + tiles_ * sizeof(AdamwHalfReport);
}

void AdamwPlan::step(const std::byte* table, std::byte* workspace, const AdamwStep* step,
                     const double* grad_norm_squared, Stream stream) const {
  if (halves_ == 0) return;
  if (!grad_norm_squared) throw Error("an AdamW step on the device needs the gradient's norm, and was given none");
  const Tables tables{reinterpret_cast<const FlatHalf*>(table),
                      reinterpret_cast<const FlatTile*>(table + tiles_offset_),
                      reinterpret_cast<unsigned*>(workspace),
                      reinterpret_cast<AdamwHalfReport*>(workspace + reports_offset_),
                      reinterpret_cast<AdamwHalfReport*>(workspace + sums_offset_),
                      static_cast<int>(halves_)};
  const Constants constants{options_.beta1, options_.beta2, options_.eps, options_.weight_decay,
                            options_.max_grad_norm};
  const auto kernel = options_.precision == Precision::kDouble ? adamw_kernel<double> : adamw_kernel<float>;
  const std::size_t shared = SharedArena::bytes<double>(2 * kFlatThreads / 32) + SharedArena::bytes<int>(1);
  launch(kernel, {static_cast<unsigned>(tiles_), kFlatThreads, shared, stream}, tables, constants, step,
         grad_norm_squared);
}

}  // namespace lomu::cuda

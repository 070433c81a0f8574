// Gauge balance, every hundred steps or so: P <- c P, Q <- Q / c, momenta the other way round, by the power of two that
// brings the spectral norms of P and Q together. A block of threads for each pair reads both factors for their Grams,
// takes the largest eigenvalues and writes everything back scaled: 4 + 18 bytes a parameter where c is not 1. Blocks
// are few, so it does not reach the memory's speed; it need not.
#include "kernels/cuda/panel_gram.h"
#include "kernels/cuda/small_gram.h"
#include "kernels/cuda/small_jacobi.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kFactorNumbers = 2 * kGramPanelSize + kThreads / 32;

/// ||factor||_2^2, the same in all threads; 0 if it is zero or not finite. Uses the half's first slot. Ends while
/// others still read `numbers`.
template <class Real>
__device__ double spectral_norm_squared(const Workspace<Real>& space, const Half& half, const MomentumRule<Real>& rule,
                                        Real* numbers, int* ints, Real* work_data) {
  Real* slot = space.numbers + half.partials;
  const int groups = groups_of(half.rank);
  for (int i = 0; i < groups; ++i) {
    for (int j = i; j < groups; ++j) {
      const GramSource from{half, 0, static_cast<int>(half.length), i * kGroup, j * kGroup, false};
      panel_gram_of(from, rule, numbers, numbers + 2 * kGramPanelSize, slot);
    }
  }
  Half whole = half;
  whole.slots = 1;
  const double size = gram_trace(space, whole, GramKind::kFactor, numbers);
  if (!is_finite(size) || !(size > 0.0)) return 0.0;
  const int exponent = ilogb(size);
  const Square<Real> work{work_data, half.rank, square_pitch(half.rank)};
  sum_gram(space, whole, GramKind::kFactor, -exponent, work);
  __syncthreads();
  pivoted_cholesky_rows(work, ints);
  orthogonalise_rows(work, ints, numbers);
  for (int i = static_cast<int>(threadIdx.x); i < half.rank; i += threads()) {
    const Vector<Real> row{&work(i, 0), 1};
    numbers[i] = inner(row, row, 0, half.rank);
  }
  __syncthreads();
  return ldexp(as_double(largest_of<Real>(half.rank, [&](int i) { return numbers[i]; })), exponent);
}

/// factor <- c factor, momentum <- momentum / c, and the copy, over a whole half.
__device__ inline void scale_half(const Half& half, float c, float inverse) {
  using Shape = PanelShape<64>;
  for (int column = 0; column < half.rank; column += 64) {
    for (std::int64_t row = 0; row < half.length; row += Shape::kRows) {
#pragma unroll 1
      for (int q = 0; q < Shape::kQuads; ++q) {
        const QuadPlace at = place_of<Shape, 64>(half, row, static_cast<int>(half.length - row), q, column);
        Quad x = load_quad(half.arrays.factor, at), m = load_quad(half.arrays.first_moment, at);
        for (int i = 0; i < 4; ++i) {
          x.x[i] *= c;
          m.x[i] *= inverse;
        }
        store_quad(half.arrays.factor, at, x);
        store_quad(half.arrays.first_moment, at, m);
        store_packed(half.arrays.packed, at, x);
      }
    }
  }
}

template <class Real>
__global__ void __launch_bounds__(kThreads, 1) balance_kernel(Workspace<Real> space) {
  if (*space.failures == 0) {
    SharedArena shared;
    Real* numbers = shared.take<Real>(kFactorNumbers);
    int* ints = shared.take<int>(kMaxRank + 2);
    const Half& left = space.halves[2 * blockIdx.x];
    const Half& right = space.halves[2 * blockIdx.x + 1];
    Real* work = left.rank <= kMaxSharedRank ? shared.take<Real>(square_size(left.rank)) : space.numbers + left.scratch;
    const MomentumRule<Real> none{StepRule{}};
    double norms[2] = {};
#pragma unroll 1  // one copy of the code
    for (int side = 0; side < 2; ++side) {
      const double norm = spectral_norm_squared(space, side == 0 ? left : right, none, numbers, ints, work);
      (side == 0 ? norms[0] : norms[1]) = norm;
    }
    if (norms[0] > 0.0 && norms[1] > 0.0) {
      const int exponent = static_cast<int>(round(0.25 * log2(norms[1] / norms[0])));
      if (exponent != 0) {
        const float c = ldexpf(1.0f, exponent), inverse = ldexpf(1.0f, -exponent);
        scale_half(left, c, inverse);
        scale_half(right, inverse, c);
      }
    }
  }
}

}  // namespace

template <class Real>
void launch_balance(const Workspace<Real>& work, int pairs, int largest_rank, Stream stream) {
  const int in_shared = largest_rank < kMaxSharedRank ? largest_rank : kMaxSharedRank;
  const std::size_t shared = SharedArena::bytes<Real>(kFactorNumbers) + SharedArena::bytes<int>(kMaxRank + 2) +
                             SharedArena::bytes<Real>(square_size(in_shared));
  launch(balance_kernel<Real>, {static_cast<unsigned>(pairs), kThreads, shared, stream}, work);
}

template void launch_balance(const Workspace<double>&, int, int, Stream);
template void launch_balance(const Workspace<TwoFloat>&, int, int, Stream);

}  // namespace lomu::cuda

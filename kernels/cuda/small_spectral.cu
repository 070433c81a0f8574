// Launch 2 of a LoRA-Muon step: a block of threads for each factor sums the slots of its Grams in order, makes
// K = F D^(-1/2) F^T from them and reports. Bound: latency. The reading of the slots is a few percent of launch 1's; of
// the r x r work the Jacobi rounds are most, r - 1 a sweep, each a dot product, a rotation and a barrier. Blocks of all
// factors run side by side, four on an SM at rank 64 (33 KiB of work matrix each; the roots, read by whole warps at one
// address, lie in the caches). Above rank 144 the work matrix too lies in the L2 cache, whose bandwidth then bounds.
#include "kernels/cuda/small_gram.h"
#include "kernels/cuda/small_jacobi.h"
#include "kernels/cuda/small_newton_schulz.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

template <class Real>
constexpr int kBlocksPerSm = std::is_same_v<Real, double> ? 4 : 2;

/// What kernels of this stage have in shared memory besides the work matrix.
template <class Real>
struct Scratch {
  Real* first;   ///< 2 kMaxRank, of the metric or of the outer root
  Real* second;  ///< 2 kMaxRank, of the damped root, then of the spectrum
  int* ints;     ///< kMaxRank + 2
};

/// One half's r x r problem, with powers of two taken out of all matrices so that no number leaves the range of a
/// float: Gram of the partner 4^-metric, of the factor 4^-own, of the direction 4^-direction.
struct Problem {
  int own, direction, metric;
  double damping;  ///< c of the damped metric in these units; 0: none
  bool solvable;   ///< else K is zero
  int raises;      ///< found on the way: shifts of metrics, and the power of two of D, 4^-whitened
  int whitened;
};

/// K with its power of two given back, and ||direction K||^2.
template <class Real>
struct Solution {
  double norm_squared;
  LoraMuonStatus status;
};

/// e with 4^e <= x < 4^(e + 1), nearly.
__device__ inline int half_exponent(double x) {
  return ilogb(x) / 2;
}

template <class Real>
__device__ inline int bounded(int exponent) {
  return exponent > kMaxExponent<Real>    ? kMaxExponent<Real>
         : exponent < -kMaxExponent<Real> ? -kMaxExponent<Real>
                                          : exponent;
}

template <class Real>
struct Spectral {
  const Workspace<Real>& space;
  const Half& own;
  const Half& partner;
  Square<Real> work;
  Scratch<Real> scratch;
  Problem& problem;  ///< in shared memory: registers are short

  __device__ Square<Real> square(int index) const {
    const int rank = own.rank;
    return {space.numbers + own.scratch + static_cast<std::int64_t>(index) * square_size(rank), rank,
            square_pitch(rank)};
  }
  __device__ void load_own(Square<Real> to) const { sum_gram(space, own, GramKind::kFactor, -2 * problem.own, to); }
  __device__ void load_partner(Square<Real> to) const {
    sum_gram(space, partner, GramKind::kFactor, -2 * problem.metric, to);
  }
  __device__ void load_direction(Square<Real> to) const {
    sum_gram(space, own, GramKind::kDirection, -2 * problem.direction, to);
  }
  __device__ Real damping_squared() const { return real<Real>(problem.damping * problem.damping); }

  /// The power of two that K lacks, for D scaled by 4^-whitened.
  __device__ Real unit_of_k(int whitened) const {
    return real<Real>(ldexp(1.0, -problem.metric - problem.direction - whitened));
  }

  /// The Cholesky factors L and M; made anew where they are used, for the same reason.
  __device__ Lower<Real> outer() const { return {square(0), scratch.first + kMaxRank}; }
  __device__ Lower<Real> inside() const { return {square(1), scratch.second + kMaxRank}; }

  __device__ Solution<Real> exact() const;
  __device__ Solution<Real> newton_schulz(const NewtonSchulzTables& tables) const;
  __device__ void write_k(Square<Real> k, Real unit) const {
    const int pitch = padded_rank(own.rank);
    Real* to = space.numbers + own.step_matrix;
    for_each_element(pitch,
                     [&](int i, int j) { to[i * pitch + j] = i < own.rank && j < own.rank ? unit * k(i, j) : Real{}; });
  }
};

/// With F = L^-T, or L M^-T where damped, and D = F^T S F = sum of lambda_i u_i u_i^T: rows h_i = lambda_i^(-1/4) F u_i
/// give K as their Gram.
template <class Real>
__device__ Solution<Real> Spectral<Real>::exact() const {
  using enum Triangular;
  const bool damped = own.damped;
  const int rank = own.rank, thread = static_cast<int>(threadIdx.x);

  // 1. The roots.
  const Shifts shifts = shifted_cholesky(work, scratch.first, [&] { damped ? load_own(work) : load_partner(work); });
  if (!shifts.done) return {0.0, LoraMuonStatus::kMetricNotPositive};
  copy(outer().matrix, work);
  if (thread == 0) problem.raises = shifts.raises;
  if (damped) {
    const Shifts more = shifted_cholesky(work, scratch.second, [&] {
      load_partner(work);
      __syncthreads();
      apply_to_columns<kMultiplyTransposed>(outer(), work);
      apply_to_rows<kMultiplyTransposed>(outer(), work);
      symmetrise(work);
      for (int i = thread; i < rank; i += threads()) work(i, i) = work(i, i) + damping_squared();
    });
    if (thread == 0) problem.raises += more.raises;
    if (!more.done) return {0.0, LoraMuonStatus::kMetricNotPositive};
    copy(inside().matrix, work);
  }

  // 2. D, with its own power of two taken out.
  load_direction(work);
  __syncthreads();
  if (damped) {
    apply_to_columns<kMultiplyTransposed>(outer(), work);
    apply_to_columns<kSolve>(inside(), work);
    apply_to_rows<kMultiplyTransposed>(outer(), work);
    apply_to_rows<kSolve>(inside(), work);
  } else {
    apply_to_columns<kSolve>(outer(), work);
    apply_to_rows<kSolve>(outer(), work);
  }
  symmetrise(work);
  const double size = as_double(trace(work));
  if (!is_finite(size) || !(size > 0.0)) return {0.0, LoraMuonStatus::kMetricNotPositive};
  const int whitened = bounded<Real>(half_exponent(size));
  if (thread == 0) problem.whitened = whitened;
  __syncthreads();  // all have read the diagonal
  multiply_all(work, real<Real>(ldexp(1.0, -2 * whitened)));

  // 3. Its eigenvectors, in the rows; those of eigenvalues that count as zero become zero.
  constexpr double kZeroShare = 1e-12;
  pivoted_cholesky_rows(work, scratch.ints);
  if (!orthogonalise_rows(work, scratch.ints, scratch.first)) return {0.0, LoraMuonStatus::kNotConverged};
  Real* const values = scratch.second;  // the damped metric's diagonal is no longer needed
  for (int i = thread; i < rank; i += threads()) {
    const Vector<Real> row{&work(i, 0), 1};
    values[i] = inner(row, row, 0, rank);
  }
  __syncthreads();
  const Real largest = largest_of<Real>(rank, [&](int i) { return values[i]; });
  Real* const factors = scratch.first;
  for (int i = thread; i < rank; i += threads()) {
    const Real length = root(values[i]);
    const bool counts = values[i] > real<Real>(kZeroShare) * largest;
    factors[i] = counts ? real<Real>(1.0) / (length * root(length)) : Real{};
  }
  __syncthreads();
  for_each_element(rank, [&](int i, int j) { work(i, j) = factors[i] * work(i, j); });
  __syncthreads();

  // 4. F times each, and K.
  apply_to_rows<kSolveTransposed>(damped ? inside() : outer(), work);
  if (damped) apply_to_rows<kMultiply>(outer(), work);
  Real* const norms = scratch.first;
  for (int i = thread; i < rank; i += threads()) {
    const Vector<Real> row{&work(i, 0), 1};
    norms[i] = inner(row, row, 0, rank) * root(values[i]);
  }
  // The outer root is done with: its square takes K.
  multiply(outer().matrix, view(work).transposed(), view(work));
  write_k(outer().matrix, unit_of_k(problem.whitened));
  const Real norm_squared = sum_of<Real>(rank, [&](int i) { return norms[i]; });
  return {ldexp(as_double(norm_squared), -2 * problem.metric), LoraMuonStatus::kDone};
}

template <class Real>
__device__ Solution<Real> Spectral<Real>::newton_schulz(const NewtonSchulzTables& tables) const {
  constexpr double kNormFloor = 1e-20;
  const int rank = own.rank;
  const FiveSquares<Real> m{square(0), square(1), square(2), square(3), square(4)};
  const Lower<Real> outer{square(5), scratch.first + kMaxRank};

  // 1. The metric, written out: S + c^2 T^-1 where damped.
  if (problem.damping > 0.0) {
    const Shifts shifts = shifted_cholesky(outer.matrix, scratch.first, [&] { load_own(outer.matrix); });
    if (!shifts.done) return {0.0, LoraMuonStatus::kMetricNotPositive};
    set_identity(m.b, real<Real>(1.0));
    apply_to_columns<Triangular::kSolve>(outer, m.b);
    apply_to_columns<Triangular::kSolveTransposed>(outer, m.b);
    load_partner(m.a);
    __syncthreads();
    for_each_element(rank, [&](int i, int j) { m.a(i, j) = mul_add(damping_squared(), m.b(i, j), m.a(i, j)); });
    __syncthreads();
    symmetrise(m.a);
  } else {
    load_partner(m.a);
    __syncthreads();
  }

  // 2. R = C^(-1/2), and the sign's W for the Gram R S R of the whitened direction; K = R W R.
  copy(work, newton_schulz_inverse_root(m, tables));
  load_direction(m.a);
  __syncthreads();
  congruence(work, m.a, m.b);
  const Square<Real> sign = newton_schulz_sign(m, ldexp(kNormFloor, problem.metric - problem.direction), tables);
  congruence(work, sign, m.c);

  // 3. ||direction K||^2 = tr(K S K).
  load_direction(m.a);
  __syncthreads();
  multiply(m.c, view(sign), view(m.a));
  Real* const norms = scratch.first;
  for (int i = static_cast<int>(threadIdx.x); i < rank; i += threads()) {
    norms[i] = inner(Vector<Real>{&m.c(i, 0), 1}, Vector<Real>{&sign(0, i), sign.pitch}, 0, rank);
  }
  write_k(sign, unit_of_k(0));
  __syncthreads();
  const Real norm_squared = sum_of<Real>(rank, [&](int i) { return norms[i]; });
  return {ldexp(as_double(norm_squared), -2 * problem.metric), LoraMuonStatus::kDone};
}

/// What the traces of a half's matrices say: whether there is anything to solve, and in which units. Begins the report.
template <class Real>
__device__ LoraMuonStatus pose(const Workspace<Real>& space, const Half& own, const Half& partner, const StepRule& rule,
                               Real* scratch, LoraMuonHalfReport& report, Problem& problem) {
  const double own_trace = gram_trace(space, own, GramKind::kFactor, scratch);
  const double direction = gram_trace(space, own, GramKind::kDirection, scratch);
  const double metric = gram_trace(space, partner, GramKind::kFactor, scratch);
  const double grad_norm = grad_norm_squared(space, own);
  if (threadIdx.x == 0) {
    report.grad_norm_squared = grad_norm;
    report.factor_norm_squared = own_trace;
  }
  problem = {0, 0, 0, 0.0, false, 0, 0};
  if (!is_finite(own_trace)) return LoraMuonStatus::kFactorNotFinite;
  if (!is_finite(direction) || !is_finite(grad_norm)) return LoraMuonStatus::kGradientNotFinite;
  const double eta = rule.step->lr * own.step_multiplier;
  if (!(eta > 0.0) || !(direction > 0.0)) return LoraMuonStatus::kDone;
  if (!is_finite(metric)) return LoraMuonStatus::kDone;  // the partner's block reports it
  const double damping = own.damped ? eta / (2.0 * rule.damping * own.scale) : 0.0;
  if (damping == 0.0 && !(metric > 0.0)) return LoraMuonStatus::kPartnerZero;
  if (damping > 0.0 && !(own_trace > 0.0)) return LoraMuonStatus::kMetricNotPositive;
  problem.solvable = true;
  problem.own = bounded<Real>(half_exponent(own_trace));
  problem.direction = bounded<Real>(half_exponent(direction));
  // tr(C) is at least this: the trace of an inverse is at least r^2 over the trace.
  const double damped = damping > 0.0 ? damping * damping * own.rank * own.rank / own_trace : 0.0;
  problem.metric = bounded<Real>(half_exponent(metric + damped));
  problem.damping = damping > 0.0 ? ldexp(damping, -problem.metric - problem.own) : 0.0;
  return LoraMuonStatus::kDone;
}

template <class Real, bool NewtonSchulz>
__global__ void __launch_bounds__(kThreads, NewtonSchulz ? 2 : kBlocksPerSm<Real>)
    small_spectral_kernel(Workspace<Real> space, StepRule rule, const __grid_constant__ NewtonSchulzTables tables) {
  SharedArena shared;
  Scratch<Real> scratch;
  scratch.first = shared.take<Real>(2 * kMaxRank);
  scratch.second = shared.take<Real>(2 * kMaxRank);
  scratch.ints = shared.take<int>(kMaxRank + 2);
  Problem* const shared_problem = shared.take<Problem>(1);
  const Half& own = space.halves[blockIdx.x];
  const Half& partner = space.halves[blockIdx.x ^ 1u];
  const int rank = own.rank;
  Real* work = rank <= kMaxSharedRank
                   ? shared.take<Real>(square_size(rank))
                   : space.numbers + own.scratch + static_cast<std::int64_t>(NewtonSchulz ? 6 : 2) * square_size(rank);

  LoraMuonHalfReport* const report = space.reports + blockIdx.x;
  Problem& problem = *shared_problem;
  Solution<Real> solution{0.0, LoraMuonStatus::kDone};
  {
    Problem posed;
    solution.status = pose(space, own, partner, rule, scratch.first, *report, posed);
    if (threadIdx.x == 0) problem = posed;
  }
  __syncthreads();
  if (problem.solvable) {
    const Spectral<Real> spectral{space, own, partner, {work, rank, square_pitch(rank)}, scratch, problem};
    if constexpr (NewtonSchulz) {
      solution = spectral.newton_schulz(tables);
    } else {
      solution = spectral.exact();
    }
  } else {
    Real* k = space.numbers + own.step_matrix;
    const int padded = padded_rank(rank);
    for (int i = static_cast<int>(threadIdx.x); i < padded * padded; i += threads()) k[i] = {};
  }
  if (threadIdx.x == 0) {
    const double reach = rule.step->lr * own.step_multiplier / (2.0 * own.scale);
    report->step_norm_squared = reach * reach * solution.norm_squared;
    report->cholesky_raises = problem.raises;
    report->status = solution.status;
    if (solution.status != LoraMuonStatus::kDone) atomicAdd(space.failures, 1);
  }
}

}  // namespace

template <class Real>
void launch_small_spectral(const Workspace<Real>& work, const StepRule& rule, bool newton_schulz, int pairs,
                           int largest_rank, Stream stream) {
  const int in_shared = largest_rank < kMaxSharedRank ? largest_rank : kMaxSharedRank;
  const std::size_t shared = 2 * SharedArena::bytes<Real>(2 * kMaxRank) + SharedArena::bytes<int>(kMaxRank + 2) +
                             SharedArena::bytes<Problem>(1) + SharedArena::bytes<Real>(square_size(in_shared));
  const auto kernel = newton_schulz ? small_spectral_kernel<Real, true> : small_spectral_kernel<Real, false>;
  // Eight threads for each pair of rows are as many as there is work for.
  const unsigned threads = largest_rank <= 16 ? 64 : largest_rank <= 32 ? 128 : kThreads;
  launch(kernel, {2 * static_cast<unsigned>(pairs), threads, shared, stream}, work, rule, NewtonSchulzTables{});
}

template void launch_small_spectral(const Workspace<double>&, const StepRule&, bool, int, int, Stream);
template void launch_small_spectral(const Workspace<TwoFloat>&, const StepRule&, bool, int, int, Stream);

}  // namespace lomu::cuda

#include "engine/optimizers/spectral_bound.h"

#include <Eigen/Dense>
#include <cmath>
#include <vector>

#include "engine/optimizers/parallel_pairs.h"
#include "engine/optimizers/small_matrix.h"
#include "engine/optimizers/tall_products.h"
#include "kernels/error.h"

namespace lomu {
namespace {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

/// R with R^T R = the Gram of X, so that X = U R with orthonormal columns in U wherever R is not zero.
Matrix root_of(const SmallMatrix& gram) {
  Matrix g(gram.size(), gram.size());
  for (std::int64_t i = 0; i < gram.size(); ++i) {
    for (std::int64_t j = 0; j < gram.size(); ++j) g(i, j) = gram(i, j);
  }
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(g);
  return eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal() * eigen.eigenvectors().transpose();
}

double clipped(double x, double b, SpectralClip clip) {
  if (clip == SpectralClip::kHard) return std::min(x, b);
  const double knee = b / 2;
  return x <= knee ? x : knee * (1 + std::tanh((x - knee) / knee));
}

/// x <- x (I + sum of from_i to_i^T) for every row x of a factor: row k is x[k * step], and so on by `stride`.
void add_directions(float* factor, std::int64_t rows, std::int64_t step, std::int64_t stride, const Matrix& from,
                    const Matrix& to) {
  const Eigen::Index r = from.rows();
  Vector x(r);
  for (std::int64_t k = 0; k < rows; ++k) {
    float* const row = factor + k * step;
    for (Eigen::Index i = 0; i < r; ++i) x(i) = row[i * stride];
    const Vector moved = x + to * (from.transpose() * x);
    for (Eigen::Index i = 0; i < r; ++i) row[i * stride] = static_cast<float>(moved(i));
  }
}

}  // namespace

ClippedProduct clip_product(const PairView& pair, double b, SpectralClip clip) {
  const double bound = b / pair.scale;
  const Matrix left = root_of(gram_of({false, pair.m, pair.r}, pair.left));
  const Matrix right = root_of(gram_of({true, pair.n, pair.r}, pair.right));
  const Matrix core = left * right.transpose();  // its singular values are those of P Q^T
  const double at_most = core.norm();
  const double first_touched = clip == SpectralClip::kHard ? bound : bound / 2;
  if (!(at_most > first_touched)) return {pair.scale * at_most, 0};

  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(core * core.transpose());
  if (eigen.info() != Eigen::Success) {
    throw NumericError("the singular values of a product do not converge", std::string(pair.name),
                       "lower the learning rate");
  }
  const Vector values = eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt();  // ascending
  Eigen::Index count = 0;
  while (count < values.size() && values(values.size() - 1 - count) > first_touched) ++count;
  const ClippedProduct result{pair.scale * values(values.size() - 1), count};
  if (count == 0) return result;

  // Of the touched directions core = A S B^T. P (I + R_Q^T B h S^-1 A^T R_P) with h = sqrt(f(S) / S) - 1 scales each
  // of them by sqrt(f(S) / S), and so does the same for Q: no root is inverted, so a factor may be singular.
  const Matrix a = eigen.eigenvectors().rightCols(count);
  const Vector s = values.tail(count);
  const Matrix b_vectors = core.transpose() * a * s.cwiseInverse().asDiagonal();
  Vector share(count);
  for (Eigen::Index i = 0; i < count; ++i) share(i) = (std::sqrt(clipped(s(i), bound, clip) / s(i)) - 1) / s(i);
  const Matrix left_from = right.transpose() * b_vectors * share.asDiagonal();
  const Matrix right_from = left.transpose() * a * share.asDiagonal();
  add_directions(pair.left, pair.m, pair.r, 1, left_from, left.transpose() * a);
  add_directions(pair.right, pair.n, 1, pair.n, right_from, right.transpose() * b_vectors);
  return result;
}

Bounded::Bounded(const OptimizerOptions& options) : bound_(*options.spectral_bound), clip_(options.spectral_clip) {
  OptimizerOptions inner = options;
  inner.spectral_bound.reset();
  inner_ = make_optimizer(inner);
}

std::span<const StateSlot> Bounded::state_slots(const ParameterShape& shape) const {
  return inner_->state_slots(shape);
}

void Bounded::check_all(std::span<const ParameterShape> all) const {
  inner_->check_all(all);
}

void Bounded::check(std::span<const PairView> pairs) const {
  inner_->check(pairs);
}

void Bounded::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  inner_->step(pairs, info, report);
  for_each_pair(pairs.size(), [&](std::size_t i) {
    if (!pairs[i].dense()) clip_product(pairs[i], bound_, clip_);
  });
}

}  // namespace lomu

#include "engine/optimizers/small_matrix.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/error.h"

namespace lomu {
namespace {

// Eigen's own storage, not maps of ours: its vectorised loops start at aligned addresses, and a buffer of arbitrary
// alignment would make the order of additions depend on where it happens to lie.
using Matrix = Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix to_eigen(const SmallMatrix& a) {
  return Eigen::Map<const RowMajor>(a.values().data(), a.size(), a.size());
}

SmallMatrix from_eigen(const Matrix& a) {
  SmallMatrix out(a.rows());
  Eigen::Map<RowMajor>(out.values().data(), a.rows(), a.cols()) = a;
  return out;
}

struct Cholesky {
  Matrix lower;
  int raises = 0;
};

/// A pivot is what is left of a diagonal entry after subtracting up to r squares of about its size: below r units of
/// rounding of that entry it is noise, whatever its sign.
bool pivots_are_sound(const Matrix& lower, const Matrix& c) {
  const double noise = static_cast<double>(c.rows()) * std::numeric_limits<double>::epsilon();
  for (Eigen::Index i = 0; i < c.rows(); ++i) {
    if (!(lower(i, i) * lower(i, i) > noise * c(i, i))) return false;
  }
  return true;
}

Cholesky cholesky(const Matrix& c, std::string_view where) {
  const double mean = c.trace() / static_cast<double>(c.rows());
  if (!c.allFinite() || !(mean > 0.0)) {
    throw NumericError(mean == 0.0 ? "a factor is zero, so its partner has no metric to step in"
                                   : "the Gram of a factor is not finite",
                       std::string(where),
                       mean == 0.0 ? "a factor may start at zero only with damping on" : "lower the learning rate");
  }
  Matrix shifted = c;
  double shift = 0.0;
  for (int raises = 0;; ++raises) {
    const Eigen::LLT<Matrix> factorisation(shifted);
    Matrix lower = factorisation.matrixL();
    if (factorisation.info() == Eigen::Success && pivots_are_sound(lower, shifted)) return {std::move(lower), raises};
    shift = raises == 0 ? 1e-12 * mean : 10.0 * shift;
    shifted = c;
    shifted.diagonal().array() += shift;
  }
}

/// L^-T, upper triangular.
Matrix inverse_transposed(const Matrix& lower) {
  Matrix inverse = Matrix::Identity(lower.rows(), lower.cols());
  lower.triangularView<Eigen::Lower>().transpose().solveInPlace(inverse);
  return inverse;
}

/// A with A A = C, A symmetric; unlike Cholesky it exists for a singular C, zero included.
Matrix symmetric_root(const SmallMatrix& c) {
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(to_eigen(c));
  const Eigen::VectorXd roots = eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt();
  return eigen.eigenvectors() * roots.asDiagonal() * eigen.eigenvectors().transpose();
}

}  // namespace

double SmallMatrix::trace() const {
  double sum = 0.0;
  for (std::int64_t i = 0; i < size_; ++i) sum += (*this)(i, i);
  return sum;
}

MetricRoot metric_root(const SmallMatrix& c, std::string_view where) {
  const Cholesky l = cholesky(to_eigen(c), where);
  return {from_eigen(inverse_transposed(l.lower)), l.raises};
}

MetricRoot damped_metric_root(const SmallMatrix& partner, const SmallMatrix& own, double c, std::string_view where) {
  const Cholesky outer = cholesky(to_eigen(own), where);
  Matrix inner = outer.lower.transpose() * to_eigen(partner) * outer.lower;
  inner.diagonal().array() += c * c;
  const Cholesky damped = cholesky(inner, where);
  const Matrix root = outer.lower.triangularView<Eigen::Lower>() * inverse_transposed(damped.lower);
  return {from_eigen(root), outer.raises + damped.raises};
}

SmallMatrix damped_metric(const SmallMatrix& partner, const SmallMatrix& own, double c, std::string_view where) {
  const Matrix root = inverse_transposed(cholesky(to_eigen(own), where).lower);
  return from_eigen(to_eigen(partner) + c * c * (root * root.transpose()));
}

StepMatrix exact_step_matrix(const SmallMatrix& momentum_gram, const SmallMatrix& root, std::string_view where,
                             const std::function<double(double)>& filter) {
  const std::int64_t r = momentum_gram.size();
  StepMatrix step{SmallMatrix(r), 0.0, std::vector<double>(static_cast<std::size_t>(r), 0.0)};
  if (momentum_gram.trace() == 0.0) return step;

  const Matrix f = to_eigen(root);
  const Matrix d = f.transpose() * to_eigen(momentum_gram) * f;
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(d);
  if (eigen.info() != Eigen::Success) {
    throw NumericError("the eigenvalues of a whitened momentum do not converge", std::string(where),
                       "lower the learning rate");
  }
  const Eigen::VectorXd& values = eigen.eigenvalues();
  const double floor = kZeroSingularValue * kZeroSingularValue * values(r - 1);
  Matrix h = f * eigen.eigenvectors();
  for (std::int64_t i = 0; i < r; ++i) {
    step.spectrum[static_cast<std::size_t>(i)] = std::sqrt(std::max(values(i), 0.0));
    if (values(i) > floor) {
      const double kept = filter ? filter(std::sqrt(values(i) / values(r - 1))) : 1.0;
      step.norm_squared += kept * kept * h.col(i).squaredNorm();
      h.col(i) /= std::sqrt(std::sqrt(values(i)) / kept);
    } else {
      h.col(i).setZero();
    }
  }
  step.k = from_eigen(h * h.transpose());
  return step;
}

std::vector<double> singular_values(const SmallMatrix& gram) {
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(to_eigen(gram), Eigen::EigenvaluesOnly);
  std::vector<double> values;
  for (std::int64_t i = gram.size() - 1; i >= 0; --i)
    values.push_back(std::sqrt(std::max(0.0, eigen.eigenvalues()(i))));
  return values;
}

double spectral_norm(const SmallMatrix& gram) {
  return singular_values(gram).front();
}

std::vector<double> singular_values_of_product(const SmallMatrix& left_gram, const SmallMatrix& right_gram) {
  return singular_values(congruence(from_eigen(symmetric_root(left_gram)), right_gram));
}

SmallMatrix shifted_inverse(const SmallMatrix& s, double delta, std::string_view where) {
  Matrix shifted = to_eigen(s);
  shifted.diagonal().array() += delta;
  const Matrix root = inverse_transposed(cholesky(shifted, where).lower);
  return from_eigen(root * root.transpose());
}

Eigensystem eigensystem(const SmallMatrix& a, std::string_view where) {
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(to_eigen(a));
  if (eigen.info() != Eigen::Success) {
    throw NumericError("the eigenvalues of a Gram do not converge", std::string(where), "lower the learning rate");
  }
  return {from_eigen(eigen.eigenvectors()), {eigen.eigenvalues().begin(), eigen.eigenvalues().end()}};
}

SmallMatrix function_of(const Eigensystem& a, const std::function<double(double)>& f) {
  const Matrix v = to_eigen(a.vectors);
  Matrix scaled_columns = v;
  for (Eigen::Index i = 0; i < v.cols(); ++i) scaled_columns.col(i) *= f(a.values[static_cast<std::size_t>(i)]);
  const Matrix out = scaled_columns * v.transpose();
  return from_eigen(0.5 * (out + out.transpose()));
}

SmallMatrix identity(std::int64_t size) {
  SmallMatrix a(size);
  for (std::int64_t i = 0; i < size; ++i) a(i, i) = 1.0;
  return a;
}

SmallMatrix scaled(double factor, SmallMatrix a) {
  for (double& x : a.values()) x *= factor;
  return a;
}

SmallMatrix symmetrised(const SmallMatrix& a) {
  SmallMatrix out(a.size());
  for (std::int64_t i = 0; i < a.size(); ++i) {
    for (std::int64_t j = 0; j < a.size(); ++j) out(i, j) = 0.5 * (a(i, j) + a(j, i));
  }
  return out;
}

SmallMatrix product(const SmallMatrix& a, const SmallMatrix& b) {
  return from_eigen(to_eigen(a) * to_eigen(b));
}

SmallMatrix congruence(const SmallMatrix& a, const SmallMatrix& b) {
  const Matrix dense = to_eigen(a);
  const Matrix c = dense * to_eigen(b) * dense.transpose();
  return from_eigen(0.5 * (c + c.transpose()));
}

double trace_of_product(const SmallMatrix& a, const SmallMatrix& b) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    for (std::int64_t j = 0; j < a.size(); ++j) sum += a(i, j) * b(j, i);
  }
  return sum;
}

}  // namespace lomu

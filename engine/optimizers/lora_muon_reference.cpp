#include "engine/optimizers/lora_muon_reference.h"

#include <Eigen/SVD>
#include <cmath>
#include <limits>

#include "engine/optimizers/small_matrix.h"
#include "kernels/error.h"

namespace lomu {
namespace {

using Matrix = Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Svd = Eigen::JacobiSVD<Matrix>;

Matrix to_matrix(const std::vector<double>& values, std::int64_t rows, std::int64_t columns) {
  return Eigen::Map<const RowMajor>(values.data(), rows, columns);
}

std::vector<double> to_values(const Matrix& a) {
  std::vector<double> values(static_cast<std::size_t>(a.size()));
  Eigen::Map<RowMajor>(values.data(), a.rows(), a.cols()) = a;
  return values;
}

Svd thin_svd(const Matrix& a) {
  return Svd(a, Eigen::ComputeThinU | Eigen::ComputeThinV);
}

void require_full_rank(const Svd& svd, Eigen::Index rank) {
  const Eigen::VectorXd& sigma = svd.singularValues();
  const double noise = static_cast<double>(rank) * std::numeric_limits<double>::epsilon() * sigma(0);
  if (sigma.size() < rank || !(sigma(rank - 1) > noise)) {
    throw NumericError("the metric of a step is singular: a factor does not have full rank");
  }
}

/// F with F F^T = (B^T B)^-1: with B = U Sigma V^T that is V Sigma^-1.
Matrix inverse_metric_root(const Matrix& b) {
  const Svd svd = thin_svd(b);
  require_full_rank(svd, b.cols());
  return svd.matrixV() * svd.singularValues().cwiseInverse().asDiagonal();
}

/// X with X^T X = (B^T B)^-1: with B = U Sigma V^T that is Sigma^-1 V^T.
Matrix inverse_gram_factor(const Matrix& b) {
  return inverse_metric_root(b).transpose();
}

/// B with B^T B = C: the partner alone, or with damping partner^T partner + c^2 (own^T own)^-1, which stacks the two
/// roots.
Matrix metric_factor(const Matrix& partner, const Matrix& own, std::optional<double> rho, double lr, double scale) {
  if (!rho) return partner;
  const double c = lr / (2.0 * *rho * scale);
  Matrix stacked(partner.rows() + partner.cols(), partner.cols());
  stacked << partner, c * inverse_gram_factor(own);
  return stacked;
}

/// msign(Y): every singular value above the floor becomes 1, the others 0.
Matrix matrix_sign(const Matrix& y) {
  const Svd svd = thin_svd(y);
  const double floor = kZeroSingularValue * svd.singularValues()(0);
  const Eigen::VectorXd ones =
      svd.singularValues().unaryExpr([floor](double sigma) { return sigma > floor ? 1.0 : 0.0; });
  return svd.matrixU() * ones.asDiagonal() * svd.matrixV().transpose();
}

/// -(eta / 2s) msign(direction F) F^T.
Matrix step_of(const Matrix& direction, const Matrix& partner, const Matrix& own, std::optional<double> rho,
               const ReferenceProblem& p) {
  if (direction.isZero(0.0) || p.lr == 0.0) return Matrix::Zero(own.rows(), own.cols());
  const Matrix root = inverse_metric_root(metric_factor(partner, own, rho, p.lr, p.scale));
  return -p.lr / (2.0 * p.scale) * matrix_sign(direction * root) * root.transpose();
}

}  // namespace

ReferenceState reference_step(const ReferenceProblem& p) {
  const Matrix left = to_matrix(p.before.left, p.m, p.r);
  const Matrix right = to_matrix(p.before.right, p.n, p.r);
  const Matrix grad_left = to_matrix(p.grad_left, p.m, p.r);
  const Matrix grad_right = to_matrix(p.grad_right, p.n, p.r);
  const double beta = p.momentum;

  const Matrix momentum_left = beta * to_matrix(p.before.momentum_left, p.m, p.r) + (1.0 - beta) * grad_left;
  const Matrix momentum_right = beta * to_matrix(p.before.momentum_right, p.n, p.r) + (1.0 - beta) * grad_right;
  const Matrix direction_left = p.nesterov ? Matrix(beta * momentum_left + (1.0 - beta) * grad_left) : momentum_left;
  const Matrix direction_right =
      p.nesterov ? Matrix(beta * momentum_right + (1.0 - beta) * grad_right) : momentum_right;

  const Matrix left_step = step_of(direction_left, right, left, p.damping_left, p);
  const Matrix right_step = step_of(direction_right, left, right, p.damping_right, p);

  const double q = std::sqrt(1.0 - p.weight_decay * p.lr);
  return {to_values(q * left + left_step / q), to_values(q * right + right_step / q), to_values(momentum_left),
          to_values(momentum_right)};
}

}  // namespace lomu

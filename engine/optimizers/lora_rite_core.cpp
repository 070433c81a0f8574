#include "engine/optimizers/lora_rite_core.h"

#include <fmt/format.h>

#include <Eigen/QR>
#include <Eigen/SVD>
#include <cmath>
#include <limits>
#include <string>

#include "engine/optimizers/lora_muon.h"
#include "engine/optimizers/momentum.h"
#include "engine/optimizers/parallel_pairs.h"
#include "engine/optimizers/small_matrix.h"
#include "kernels/error.h"

namespace lomu {
namespace {

using Matrix = Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// A factor as [length, r] in double, whichever way it is stored.
Matrix widened(const float* values, const FactorShape& shape) {
  if (shape.wide) return Eigen::Map<const RowMajor>(values, shape.rank, shape.length).cast<double>().transpose();
  return Eigen::Map<const RowMajor>(values, shape.length, shape.rank).cast<double>();
}

void store(const Matrix& x, float* values, const FactorShape& shape) {
  if (shape.wide) {
    Eigen::Map<RowMajor>(values, shape.rank, shape.length) = x.transpose().cast<float>();
  } else {
    Eigen::Map<RowMajor>(values, shape.length, shape.rank) = x.cast<float>();
  }
}

/// One side of a pair in double: the factor, its new momentum and the direction of its step.
struct Half {
  FactorShape shape;
  Matrix factor, momentum, direction;
  double grad_norm_squared;
};

Half read_half(const MovingMatrix& side, const MomentumRule& rule, std::string_view what, const std::string& where) {
  const Matrix grad = widened(side.grad, side.shape);
  Half half{side.shape,
            widened(side.factor, side.shape),
            rule.beta * widened(side.momentum, side.shape) + rule.gain * grad,
            {},
            grad.squaredNorm()};
  half.direction = rule.nesterov ? Matrix(rule.beta * half.momentum + rule.gain * grad) : half.momentum;
  if (!half.factor.allFinite()) {
    throw NumericError(fmt::format("{} is not finite", what), where, "lower the learning rate");
  }
  if (!half.direction.allFinite()) {
    throw NumericError(fmt::format("the gradient or momentum of {} is not finite", what), where,
                       "lower the learning rate or look at the batch of this step");
  }
  return half;
}

/// R of b = U R. NumericError where b has not full rank.
Matrix triangle_of(const Matrix& b, const std::string& where) {
  Matrix r = Eigen::HouseholderQR<Matrix>(b).matrixQR().topRows(b.cols()).triangularView<Eigen::Upper>();
  const double noise = static_cast<double>(b.rows()) * std::numeric_limits<double>::epsilon() * r.norm();
  if (!(r.diagonal().cwiseAbs().minCoeff() > noise)) {
    throw NumericError("a factor has not full rank, so it has no QR coordinates", where,
                       "a factor may be zero only when it started so and damping is on");
  }
  return r;
}

/// c Q (Q^T Q)^-1 = c U R^-T, whose Gram is c^2 (Q^T Q)^-1.
Matrix damping_rows(const Matrix& own, double c, const std::string& where) {
  const Matrix r = triangle_of(own, where);
  const Matrix u = r.transpose().triangularView<Eigen::Lower>().solve(own.transpose()).transpose();
  return c * r.triangularView<Eigen::Upper>().solve(u.transpose()).transpose();
}

/// msign(X) by a thin QR and the singular value decomposition of its triangle.
Matrix polar_factor(const Matrix& x) {
  const Eigen::HouseholderQR<Matrix> qr(x);
  const Matrix triangle = qr.matrixQR().topRows(x.cols()).triangularView<Eigen::Upper>();
  const Eigen::JacobiSVD<Matrix> svd(triangle, Eigen::ComputeFullU | Eigen::ComputeFullV);
  const double floor = kZeroSingularValue * svd.singularValues()(0);
  const Eigen::VectorXd ones = svd.singularValues().unaryExpr([floor](double s) { return s > floor ? 1.0 : 0.0; });
  const Matrix basis = qr.householderQ() * Matrix::Identity(x.rows(), x.cols());
  return basis * (svd.matrixU() * ones.asDiagonal() * svd.matrixV().transpose());
}

/// msign(X R^-1) R^-T for the QR of the partner, damped by c > 0 where the partner started at zero.
Matrix step_of(const Half& own, const Half& partner, double c, const std::string& where) {
  if (own.direction.isZero(0.0)) return Matrix::Zero(own.factor.rows(), own.factor.cols());
  Matrix b = partner.factor;
  if (c > 0.0) {
    const Matrix under = damping_rows(own.factor, c, where);
    b.conservativeResize(b.rows() + under.rows(), Eigen::NoChange);
    b.bottomRows(under.rows()) = under;
  }
  const Matrix r = triangle_of(b, where);
  const Matrix x = r.transpose().triangularView<Eigen::Lower>().solve(own.direction.transpose()).transpose();
  return r.triangularView<Eigen::Upper>().solve(polar_factor(x).transpose()).transpose();
}

PairReport step_pair(const PairView& pair, const StepInfo& info, const OptimizerOptions& options) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const auto state = [&](std::size_t slot) { return state_slot(pair, kMomentumSlots, slot).data(); };
  const MovingMatrix left_side{{false, pair.m, pair.r}, pair.left, pair.grad_left, state(0)};
  const MovingMatrix right_side{{true, pair.n, pair.r}, pair.right, pair.grad_right, state(1)};
  const MomentumRule rule = momentum_rule(options, info);
  const Half left = read_half(left_side, rule, "the left factor", where);
  const Half right = read_half(right_side, rule, "the right factor", where);

  Matrix left_step = Matrix::Zero(pair.m, pair.r);
  Matrix right_step = Matrix::Zero(pair.n, pair.r);
  const double eta = spectral_step_size(options, info.lr, pair.m, pair.n, pair.r);
  const double reach = eta / (2.0 * pair.scale);
  if (eta > 0.0) {
    const double c = options.damping ? reach / *options.damping : 0.0;
    left_step = reach * step_of(left, right, pair.right_started_zero ? c : 0.0, where);
    right_step = reach * step_of(right, left, pair.left_started_zero ? c : 0.0, where);
  }
  const double q = std::sqrt(1.0 - options.weight_decay * info.lr);
  store(left.momentum, left_side.momentum, left.shape);
  store(right.momentum, right_side.momentum, right.shape);
  store(q * left.factor - left_step / q, pair.left, left.shape);
  store(q * right.factor - right_step / q, pair.right, right.shape);

  PairReport report;
  report.grad_norm_squared = left.grad_norm_squared + right.grad_norm_squared;
  report.update_norm_squared = left_step.squaredNorm() + right_step.squaredNorm();
  report.relative_step_left = relative_step(left_step.squaredNorm(), left.factor.squaredNorm());
  report.relative_step_right = relative_step(right_step.squaredNorm(), right.factor.squaredNorm());
  return report;
}

}  // namespace

std::span<const StateSlot> LoraRiteCore::state_slots(const ParameterShape& /*shape*/) const {
  return kMomentumSlots;
}

void LoraRiteCore::check(std::span<const PairView> pairs) const {
  refuse_dense(pairs, "lora_rite_core");
  check_pairs(pairs, *this);
  check_metric_exists(pairs, options_, "lora_rite_core");
}

void LoraRiteCore::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_pair(pairs[i], info, options_); });
}

}  // namespace lomu

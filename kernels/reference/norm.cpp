#include <cmath>

#include "kernels/reference/matrix.h"
#include "kernels/reference/reference_ops.h"

namespace lomu::reference {
namespace {

/// 1 / sqrt(mean(x^2) + eps)
double inverse_rms(std::span<const double> x, double eps) {
  return 1.0 / std::sqrt(dot(x, x) / static_cast<double>(x.size()) + eps);
}

/// y_j = x_j r w_j with r = inverse_rms(x).
void normalise(std::span<const double> x, const float* weight, double eps, std::span<double> y) {
  const double r = inverse_rms(x, eps);
  for (std::size_t j = 0; j < x.size(); ++j) y[j] = x[j] * r * weight[j];
}

/// dr/dx_j = -r^3 x_j / n, so dx_j = r w_j dy_j - (r^3 x_j / n) sum_i w_i dy_i x_i.
void normalise_backward(std::span<const double> dy, std::span<const double> x, const float* weight, double eps,
                        std::span<double> dx) {
  const double r = inverse_rms(x, eps);
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += weight[i] * dy[i] * x[i];
  const double shared = r * r * r * sum / static_cast<double>(x.size());
  for (std::size_t j = 0; j < x.size(); ++j) dx[j] = r * weight[j] * dy[j] - shared * x[j];
}

std::span<double> head(Matrix& m, std::int64_t t, std::int64_t h, std::int64_t heads) {
  const auto size = static_cast<std::size_t>(m.cols / heads);
  return m.row(t).subspan(static_cast<std::size_t>(h) * size, size);
}

}  // namespace

void ReferenceOps::rms_norm(const Tensor& x, const float* weight, double eps, const Tensor& y) const {
  require_dtype(x, {precision_.residual}, "rms_norm: x");
  require_dtype(y, {precision_.activation}, "rms_norm: y");
  const Matrix input = load(x);
  Matrix output(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) normalise(input.row(t), weight, eps, output.row(t));
  store(output, y);
}

void ReferenceOps::rms_norm_backward(const Tensor& dy, const Tensor& x, const float* weight, double eps,
                                     const Tensor& dx) const {
  require_dtype(dy, {precision_.activation}, "rms_norm_backward: dy");
  require_dtype(x, {precision_.residual}, "rms_norm_backward: x");
  require_dtype(dx, {precision_.residual}, "rms_norm_backward: dx");
  const Matrix input = load(x);
  const Matrix d_output = load(dy);
  Matrix d_input = load(dx);
  Matrix change(1, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    normalise_backward(d_output.row(t), input.row(t), weight, eps, change.row(0));
    add_scaled(d_input.row(t), 1, change.row(0));
  }
  store(d_input, dx);
}

void ReferenceOps::head_norm(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                             const Tensor& y) const {
  require_dtype(x, {precision_.activation}, "head_norm: x");
  require_dtype(y, {precision_.activation}, "head_norm: y");
  Matrix input = load(x);
  Matrix output(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t h = 0; h < heads; ++h)
      normalise(head(input, t, h, heads), weight, eps, head(output, t, h, heads));
  }
  store(output, y);
}

void ReferenceOps::head_norm_backward(const Tensor& x, const float* weight, double eps, std::int64_t heads,
                                      const Tensor& dy) const {
  require_dtype(x, {precision_.activation}, "head_norm_backward: x");
  require_dtype(dy, {precision_.activation}, "head_norm_backward: dy");
  Matrix input = load(x);
  Matrix d_output = load(dy);
  Matrix d_input(x.rows, x.cols);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      normalise_backward(head(d_output, t, h, heads), head(input, t, h, heads), weight, eps,
                         head(d_input, t, h, heads));
    }
  }
  store(d_input, dy);
}

}  // namespace lomu::reference

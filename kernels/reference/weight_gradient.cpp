#include <cmath>

#include "kernels/reference/matrix.h"
#include "kernels/reference/reference_ops.h"

namespace lomu::reference {

void ReferenceOps::weight_gradient(const Tensor& x, const Tensor& dy, const Tensor& grad) const {
  require_dtype(x, {precision_.activation}, "weight_gradient: x");
  require_dtype(dy, {precision_.activation, precision_.residual}, "weight_gradient: dy");
  require_dtype(grad, {precision_.gradient}, "weight_gradient: grad");
  const Matrix input = load(x);
  const Matrix d_output = load(dy);
  Matrix sum(grad.rows, grad.cols);
  for (std::int64_t t = 0; t < input.rows; ++t) {
    for (std::int64_t o = 0; o < sum.rows; ++o) add_scaled(sum.row(o), d_output(t, o), input.row(t));
  }
  store(sum, grad);
}

void ReferenceOps::embed_backward(std::span<const std::int32_t> ids, const Tensor& dout, const Tensor& grad) const {
  require_dtype(dout, {precision_.residual}, "embed_backward: dout");
  require_dtype(grad, {precision_.gradient}, "embed_backward: grad");
  const Matrix d_output = load(dout);
  Matrix sum = load(grad);
  for (std::size_t t = 0; t < ids.size(); ++t) {
    add_scaled(sum.row(ids[t]), 1, d_output.row(static_cast<std::int64_t>(t)));
  }
  store(sum, grad);
}

void ReferenceOps::norm_weight_gradient(const Tensor& dy, const Tensor& x, double eps, std::int64_t heads,
                                        const Tensor& grad) const {
  require_dtype(dy, {precision_.activation}, "norm_weight_gradient: dy");
  require_dtype(x, {precision_.residual, precision_.activation}, "norm_weight_gradient: x");
  require_dtype(grad, {precision_.gradient}, "norm_weight_gradient: grad");
  const Matrix input = load(x);
  const Matrix d_output = load(dy);
  const std::int64_t n = x.cols / heads;
  Matrix sum(1, n);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      double squares = 0;
      for (std::int64_t j = 0; j < n; ++j) squares += input(t, h * n + j) * input(t, h * n + j);
      const double r = 1.0 / std::sqrt(squares / static_cast<double>(n) + eps);
      for (std::int64_t j = 0; j < n; ++j) sum(0, j) += d_output(t, h * n + j) * input(t, h * n + j) * r;
    }
  }
  store(sum, grad);
}

}  // namespace lomu::reference

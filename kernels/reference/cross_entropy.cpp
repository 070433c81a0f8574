#include <algorithm>
#include <cmath>

#include "kernels/reference/matrix.h"
#include "kernels/reference/reference_ops.h"

namespace lomu::reference {

// loss = log(sum_j exp(l_j)) - l_target with l = W x; dl = softmax(l) - e_target; dx = W^T dl.
void ReferenceOps::cross_entropy(const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                                 double grad_scale, const Tensor& losses, const Tensor& dx,
                                 const Tensor& d_logits) const {
  require_dtype(x, {precision_.activation}, "cross_entropy: x");
  const Matrix input = load(x);
  const Matrix w = load(frozen_matrix(head));
  Matrix loss(1, input.rows);
  Matrix d_input(input.rows, input.cols);
  Matrix d_scores(input.rows, w.rows);
  std::vector<double> logits(static_cast<std::size_t>(w.rows));
  for (std::int64_t i = 0; i < input.rows; ++i) {
    const std::int64_t target = targets[static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j < w.rows; ++j) logits[static_cast<std::size_t>(j)] = dot(w.row(j), input.row(i));
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double l : logits) sum += std::exp(l - largest);
    const double log_sum_exp = largest + std::log(sum);
    loss(0, i) = log_sum_exp - logits[static_cast<std::size_t>(target)];
    if (dx.empty()) continue;
    for (std::int64_t j = 0; j < w.rows; ++j) {
      const double p = std::exp(logits[static_cast<std::size_t>(j)] - log_sum_exp);
      d_scores(i, j) = grad_scale * (p - (j == target ? 1 : 0));
      add_scaled(d_input.row(i), d_scores(i, j), w.row(j));
    }
  }
  store(loss, losses);
  if (dx.empty()) return;
  require_dtype(dx, {precision_.activation}, "cross_entropy: dx");
  store(d_input, dx);
  if (!d_logits.empty()) store(d_scores, d_logits);
}

}  // namespace lomu::reference

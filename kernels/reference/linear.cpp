#include "kernels/dequantize.h"
#include "kernels/dropout.h"
#include "kernels/reference/matrix.h"
#include "kernels/reference/reference_ops.h"

namespace lomu {

std::unique_ptr<Ops> make_reference_ops(Precision precision) {
  return std::make_unique<reference::ReferenceOps>(precision);
}

}  // namespace lomu

namespace lomu::reference {
namespace {

/// 0 where dropout takes the element (row, col) of an adapter's input, 1 / (1 - p) where it leaves it.
double dropout_factor(const Dropout& dropout, std::int64_t row, std::int64_t col) {
  if (dropout.p == 0) return 1;
  const bool keep = dropout_keep(dropout.key, dropout.first_row + row, col, dropout.p);
  return keep ? 1.0 / (1.0 - static_cast<double>(dropout.p)) : 0.0;
}

Matrix dropped(const Dropout& dropout, const Matrix& x) {
  Matrix out = x;
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t j = 0; j < x.cols; ++j) out(t, j) *= dropout_factor(dropout, t, j);
  }
  return out;
}

/// a b^T. a: [m, k], b: [n, k].
Matrix multiply_transposed(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.rows);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < b.rows; ++j) c(i, j) = dot(a.row(i), b.row(j));
  }
  return c;
}

/// a b. a: [m, k], b: [k, n].
Matrix multiply(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.cols);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t k = 0; k < a.cols; ++k) add_scaled(c.row(i), a(i, k), b.row(k));
  }
  return c;
}

/// factor * a^T b. a: [k, m], b: [k, n].
Matrix transposed_multiply(double factor, const Matrix& a, const Matrix& b) {
  Matrix c(a.cols, b.cols);
  for (std::int64_t k = 0; k < a.rows; ++k) {
    for (std::int64_t i = 0; i < a.cols; ++i) add_scaled(c.row(i), factor * a(k, i), b.row(k));
  }
  return c;
}

}  // namespace

Tensor ReferenceOps::frozen_matrix(const FrozenLinear& linear) const {
  const DType dtype = precision_.activation == DType::kBF16 ? DType::kBF16 : DType::kF32;
  return {linear.storage, dtype, linear.out(), linear.in};
}

std::size_t ReferenceOps::frozen_bytes(const FrozenLinear& linear) const {
  if (linear.zero) return 0;
  const Tensor w = frozen_matrix(linear);
  return static_cast<std::size_t>(w.size()) * size_of(w.dtype);
}

void ReferenceOps::dequantize(const EncodedRows& from, const Tensor& to) const {
  lomu::dequantize(from, to);
}

void ReferenceOps::pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                               const EncodedRows& w) const {
  std::int64_t row = first_row;
  for (std::size_t i = 0; i < part; ++i) row += linear.outs[i];
  lomu::dequantize(w, frozen_matrix(linear).row_range(row, w.rows));
}

std::size_t ReferenceOps::adapter_bytes(const AdaptedLinear&) const {
  return 0;
}

void ReferenceOps::pack_adapters(const AdaptedLinear&) const {}

void ReferenceOps::linear_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                                  const Tensor& s) const {
  require_dtype(x, {precision_.activation}, "linear_forward: x");
  require_dtype(y, {precision_.activation, precision_.residual}, "linear_forward: y");
  const Matrix input = load(x);
  Matrix output(x.rows, linear.frozen.out());
  if (!linear.frozen.zero) output = multiply_transposed(input, load(frozen_matrix(linear.frozen)));
  std::int64_t first_out = 0;
  std::int64_t first_rank = 0;
  for (std::size_t part = 0; part < linear.frozen.outs.size(); ++part) {
    const std::int64_t out = linear.frozen.outs[part];
    if (!linear.bias.empty() && linear.bias[part] != nullptr) {
      for (std::int64_t t = 0; t < output.rows; ++t) {
        for (std::int64_t o = 0; o < out; ++o) output(t, first_out + o) += linear.bias[part][o];
      }
    }
    if (!linear.adapters.empty() && linear.adapters[part].rank > 0) {
      const Adapter& adapter = linear.adapters[part];
      require_dtype(s, {precision_.activation}, "linear_forward: s");
      const Tensor s_part = s.columns(first_rank, adapter.rank);
      store(multiply_transposed(dropped(adapter.dropout, input), load(adapter.a, adapter.rank, input.cols)), s_part);
      // The rounded values: backward has no others.
      const Matrix update = multiply_transposed(load(s_part), load(adapter.b, out, adapter.rank));
      for (std::int64_t t = 0; t < output.rows; ++t) {
        add_scaled(output.row(t).subspan(static_cast<std::size_t>(first_out), static_cast<std::size_t>(out)),
                   adapter.scale, update.row(t));
      }
      first_rank += adapter.rank;
    }
    first_out += out;
  }
  if (!residual.empty()) {
    require_dtype(residual, {precision_.residual}, "linear_forward: residual");
    require_dtype(y, {precision_.residual}, "linear_forward: y with a residual");
    const Matrix r = load(residual);
    for (std::int64_t t = 0; t < output.rows; ++t) add_scaled(output.row(t), 1, r.row(t));
  }
  store(output, y);
}

void ReferenceOps::linear_backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                                   const Tensor& dx) const {
  require_dtype(dy, {precision_.activation, precision_.residual}, "linear_backward: dy");
  const Matrix d_output = load(dy);
  Matrix d_input(d_output.rows, linear.frozen.in);
  if (!dx.empty() && !linear.frozen.zero) d_input = multiply(d_output, load(frozen_matrix(linear.frozen)));
  std::int64_t first_out = 0;
  std::int64_t first_rank = 0;
  for (std::size_t part = 0; part < linear.frozen.outs.size(); ++part) {
    const std::int64_t out = linear.frozen.outs[part];
    if (!linear.adapters.empty() && linear.adapters[part].rank > 0) {
      const Adapter& adapter = linear.adapters[part];
      require_dtype(x, {precision_.activation}, "linear_backward: x");
      require_dtype(s, {precision_.activation}, "linear_backward: s");
      const Matrix dy_part = load(dy.columns(first_out, out));
      const Matrix s_part = load(s.columns(first_rank, adapter.rank));
      const Matrix ds = multiply(dy_part, load(adapter.b, out, adapter.rank));  // without the scale
      store(transposed_multiply(adapter.scale, dy_part, s_part),
            {adapter.grad_b, precision_.gradient, out, adapter.rank});
      store(transposed_multiply(adapter.scale, ds, dropped(adapter.dropout, load(x))),
            {adapter.grad_a, precision_.gradient, adapter.rank, linear.frozen.in});
      if (!dx.empty()) {
        const Matrix through_adapter =
            dropped(adapter.dropout, multiply(ds, load(adapter.a, adapter.rank, linear.frozen.in)));
        for (std::int64_t t = 0; t < d_input.rows; ++t) {
          add_scaled(d_input.row(t), adapter.scale, through_adapter.row(t));
        }
      }
      first_rank += adapter.rank;
    }
    first_out += out;
  }
  if (dx.empty()) return;
  require_dtype(dx, {precision_.activation}, "linear_backward: dx");
  store(d_input, dx);
}

}  // namespace lomu::reference

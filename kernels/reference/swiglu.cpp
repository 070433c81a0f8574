#include <cmath>

#include "kernels/reference/matrix.h"
#include "kernels/reference/reference_ops.h"

namespace lomu::reference {
namespace {

double sigmoid(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

}  // namespace

void ReferenceOps::swiglu(const Tensor& gate_up, const Tensor& h) const {
  require_dtype(gate_up, {precision_.activation}, "swiglu: gate_up");
  require_dtype(h, {precision_.activation}, "swiglu: h");
  const Matrix input = load(gate_up);
  Matrix output(h.rows, h.cols);
  for (std::int64_t t = 0; t < h.rows; ++t) {
    for (std::int64_t j = 0; j < h.cols; ++j) {
      const double gate = input(t, j);
      output(t, j) = gate * sigmoid(gate) * input(t, h.cols + j);
    }
  }
  store(output, h);
}

// silu(x) = x s with s = sigmoid(x), so silu'(x) = s (1 + x (1 - s)).
void ReferenceOps::swiglu_backward(const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up) const {
  require_dtype(dh, {precision_.activation}, "swiglu_backward: dh");
  require_dtype(gate_up, {precision_.activation}, "swiglu_backward: gate_up");
  require_dtype(d_gate_up, {precision_.activation}, "swiglu_backward: d_gate_up");
  const Matrix d_output = load(dh);
  const Matrix input = load(gate_up);
  Matrix d_input(input.rows, input.cols);
  for (std::int64_t t = 0; t < dh.rows; ++t) {
    for (std::int64_t j = 0; j < dh.cols; ++j) {
      const double gate = input(t, j);
      const double up = input(t, dh.cols + j);
      const double s = sigmoid(gate);
      d_input(t, j) = d_output(t, j) * up * s * (1 + gate * (1 - s));
      d_input(t, dh.cols + j) = d_output(t, j) * gate * s;
    }
  }
  store(d_input, d_gate_up);
}

}  // namespace lomu::reference

// How the reference computes: tensors of any element type become matrices of double, and results are rounded once, when
// they are stored. Nothing here is meant to be fast.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"

namespace lomu::reference {

struct Matrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<double> values;

  Matrix(std::int64_t r, std::int64_t c) : rows(r), cols(c), values(static_cast<std::size_t>(r * c), 0.0) {}
  double& operator()(std::int64_t i, std::int64_t j) { return values[static_cast<std::size_t>(i * cols + j)]; }
  double operator()(std::int64_t i, std::int64_t j) const { return values[static_cast<std::size_t>(i * cols + j)]; }
  [[nodiscard]] std::span<double> row(std::int64_t i) {
    return std::span(values).subspan(static_cast<std::size_t>(i * cols), static_cast<std::size_t>(cols));
  }
  [[nodiscard]] std::span<const double> row(std::int64_t i) const {
    return std::span(values).subspan(static_cast<std::size_t>(i * cols), static_cast<std::size_t>(cols));
  }
};

/// Widens, exactly.
Matrix load(const Tensor& tensor);
Matrix load(const float* values, std::int64_t rows, std::int64_t cols);

/// Rounds to nearest into the tensor's element type. The shapes are equal.
void store(const Matrix& matrix, const Tensor& tensor);

/// Throws Error unless the tensor's element type is one of `allowed`; `what` is "rms_norm: x".
void require_dtype(const Tensor& tensor, std::initializer_list<DType> allowed, std::string_view what);

double dot(std::span<const double> a, std::span<const double> b);
/// y += factor * x
void add_scaled(std::span<double> y, double factor, std::span<const double> x);

}  // namespace lomu::reference

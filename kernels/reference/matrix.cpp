#include "kernels/reference/matrix.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/error.h"

namespace lomu::reference {
namespace {

double load_element(const Tensor& t, std::int64_t i, std::int64_t j) {
  switch (t.dtype) {
    case DType::kF64: return t.row<double>(i)[j];
    case DType::kF32: return t.row<float>(i)[j];
    case DType::kBF16: return static_cast<float>(t.row<BF16>(i)[j]);
    default: throw Error(fmt::format("the reference cannot load elements of type {}", name_of(t.dtype)));
  }
}

void store_element(const Tensor& t, std::int64_t i, std::int64_t j, double value) {
  switch (t.dtype) {
    case DType::kF64: t.row<double>(i)[j] = value; return;
    case DType::kF32: t.row<float>(i)[j] = static_cast<float>(value); return;
    case DType::kBF16: t.row<BF16>(i)[j] = BF16(static_cast<float>(value)); return;
    default: throw Error(fmt::format("the reference cannot store elements of type {}", name_of(t.dtype)));
  }
}

}  // namespace

Matrix load(const Tensor& tensor) {
  Matrix m(tensor.rows, tensor.cols);
  for (std::int64_t i = 0; i < m.rows; ++i) {
    for (std::int64_t j = 0; j < m.cols; ++j) m(i, j) = load_element(tensor, i, j);
  }
  return m;
}

Matrix load(const float* values, std::int64_t rows, std::int64_t cols) {
  Matrix m(rows, cols);
  std::copy_n(values, rows * cols, m.values.begin());
  return m;
}

void store(const Matrix& matrix, const Tensor& tensor) {
  for (std::int64_t i = 0; i < matrix.rows; ++i) {
    for (std::int64_t j = 0; j < matrix.cols; ++j) store_element(tensor, i, j, matrix(i, j));
  }
}

void require_dtype(const Tensor& tensor, std::initializer_list<DType> allowed, std::string_view what) {
  if (std::find(allowed.begin(), allowed.end(), tensor.dtype) != allowed.end()) return;
  throw Error(fmt::format("{} has element type {}, which this operation does not take", what, name_of(tensor.dtype)));
}

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void add_scaled(std::span<double> y, double factor, std::span<const double> x) {
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += factor * x[i];
}

}  // namespace lomu::reference

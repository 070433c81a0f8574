// A plain matrix of double and its singular values, for tests only: written apart from the library that the optimizer
// and its reference use, so that a test does not check a thing against itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <vector>

namespace lomu::testing {

/// Row-major.
class Dense {
 public:
  Dense() = default;
  Dense(std::int64_t rows, std::int64_t columns);
  template <class T>
  Dense(const T* row_major, std::int64_t rows, std::int64_t columns) : Dense(rows, columns) {
    for (std::size_t i = 0; i < values_.size(); ++i) values_[i] = row_major[i];
  }

  [[nodiscard]] std::int64_t rows() const { return rows_; }
  [[nodiscard]] std::int64_t columns() const { return columns_; }
  double& operator()(std::int64_t i, std::int64_t j) { return values_[static_cast<std::size_t>(i * columns_ + j)]; }
  double operator()(std::int64_t i, std::int64_t j) const {
    return values_[static_cast<std::size_t>(i * columns_ + j)];
  }
  [[nodiscard]] const std::vector<double>& values() const { return values_; }

  [[nodiscard]] Dense transpose() const;
  [[nodiscard]] double norm() const;  ///< Frobenius
  [[nodiscard]] Dense map(const std::function<double(double)>& f) const;
  bool operator==(const Dense&) const = default;

 private:
  std::int64_t rows_ = 0;
  std::int64_t columns_ = 0;
  std::vector<double> values_;
};

Dense operator*(const Dense& a, const Dense& b);
Dense operator*(double factor, const Dense& a);
Dense operator+(const Dense& a, const Dense& b);
Dense operator-(const Dense& a, const Dense& b);

Dense identity(std::int64_t size);
Dense diagonal(std::span<const double> values);

/// a = u diag(values) v^T with values descending, u [rows, k], v [columns, k], k = min(rows, columns). One-sided Jacobi
/// rotations of the matrix itself: no Gram. Columns of u whose singular value is zero are zero.
struct Svd {
  Dense u;
  std::vector<double> values;
  Dense v;
};
Svd svd(const Dense& a);

/// u diag(f(values)) v^T, with values under 1e-6 of the largest taken for zero, and f of a value as it is.
Dense spectral_map(const Dense& a, const std::function<double(double)>& f);
/// Every singular value 1.
Dense matrix_sign(const Dense& a);

/// a = q r with q [rows, columns] orthonormal, by Householder reflections; rows >= columns.
struct Qr {
  Dense q;
  Dense r;
};
Qr householder_qr(const Dense& a);

/// By Gauss-Jordan elimination with pivots.
Dense inverse(const Dense& a);

/// b under a.
Dense stacked(const Dense& a, const Dense& b);

/// Descending; min(rows, columns) of them. One-sided Jacobi rotations.
std::vector<double> singular_values(const Dense& a);
double spectral_norm_of(const Dense& a);

/// Normal entries of this standard deviation.
Dense random_dense(std::mt19937_64& random, std::int64_t rows, std::int64_t columns, double size = 1.0);
/// Orthonormal columns; rows >= columns.
Dense random_orthonormal(std::mt19937_64& random, std::int64_t rows, std::int64_t columns);
/// From 1 down to 1 / condition, evenly in their logarithms.
std::vector<double> spectrum_of_condition(std::int64_t count, double condition);
/// rows >= columns, with those singular values.
Dense random_with_condition(std::mt19937_64& random, std::int64_t rows, std::int64_t columns, double condition);

}  // namespace lomu::testing

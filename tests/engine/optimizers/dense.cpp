#include "tests/engine/optimizers/dense.h"

#include <algorithm>
#include <cmath>

namespace lomu::testing {
namespace {

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<std::vector<double>> columns_of(const Dense& a) {
  std::vector<std::vector<double>> columns(static_cast<std::size_t>(a.columns()));
  for (std::int64_t j = 0; j < a.columns(); ++j) {
    for (std::int64_t i = 0; i < a.rows(); ++i) columns[static_cast<std::size_t>(j)].push_back(a(i, j));
  }
  return columns;
}

/// Turns two columns so that they become orthogonal; true if they were not already.
bool rotate(std::vector<double>& x, std::vector<double>& y) {
  const double xx = dot(x, x);
  const double yy = dot(y, y);
  const double xy = dot(x, y);
  if (std::abs(xy) <= 1e-15 * std::sqrt(xx * yy)) return false;
  const double zeta = (yy - xx) / (2.0 * xy);
  const double t = (zeta >= 0.0 ? 1.0 : -1.0) / (std::abs(zeta) + std::hypot(1.0, zeta));
  const double cosine = 1.0 / std::hypot(1.0, t);
  const double sine = cosine * t;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double old = x[i];
    x[i] = cosine * old - sine * y[i];
    y[i] = sine * old + cosine * y[i];
  }
  return true;
}

Dense combine(const Dense& a, const Dense& b, double factor) {
  Dense out(a.rows(), a.columns());
  for (std::int64_t i = 0; i < a.rows(); ++i) {
    for (std::int64_t j = 0; j < a.columns(); ++j) out(i, j) = a(i, j) + factor * b(i, j);
  }
  return out;
}

}  // namespace

Dense::Dense(std::int64_t rows, std::int64_t columns)
    : rows_(rows), columns_(columns), values_(static_cast<std::size_t>(rows * columns), 0.0) {}

Dense Dense::transpose() const {
  Dense out(columns_, rows_);
  for (std::int64_t i = 0; i < rows_; ++i) {
    for (std::int64_t j = 0; j < columns_; ++j) out(j, i) = (*this)(i, j);
  }
  return out;
}

double Dense::norm() const {
  return std::sqrt(dot(values_, values_));
}

Dense Dense::map(const std::function<double(double)>& f) const {
  Dense out = *this;
  std::transform(values_.begin(), values_.end(), out.values_.begin(), f);
  return out;
}

Dense operator*(const Dense& a, const Dense& b) {
  Dense out(a.rows(), b.columns());
  for (std::int64_t i = 0; i < a.rows(); ++i) {
    for (std::int64_t k = 0; k < a.columns(); ++k) {
      const double x = a(i, k);
      for (std::int64_t j = 0; j < b.columns(); ++j) out(i, j) += x * b(k, j);
    }
  }
  return out;
}

Dense operator*(double factor, const Dense& a) {
  return a.map([factor](double x) { return factor * x; });
}
Dense operator+(const Dense& a, const Dense& b) {
  return combine(a, b, 1.0);
}
Dense operator-(const Dense& a, const Dense& b) {
  return combine(a, b, -1.0);
}

Dense identity(std::int64_t size) {
  return diagonal(std::vector<double>(static_cast<std::size_t>(size), 1.0));
}

Dense diagonal(std::span<const double> values) {
  const auto size = static_cast<std::int64_t>(values.size());
  Dense out(size, size);
  for (std::int64_t i = 0; i < size; ++i) out(i, i) = values[static_cast<std::size_t>(i)];
  return out;
}

std::vector<double> singular_values(const Dense& a) {
  auto columns = columns_of(a.rows() >= a.columns() ? a : a.transpose());
  constexpr int kMostSweeps = 60;
  bool rotated = true;
  for (int sweep = 0; sweep < kMostSweeps && rotated; ++sweep) {
    rotated = false;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      for (std::size_t j = i + 1; j < columns.size(); ++j) rotated |= rotate(columns[i], columns[j]);
    }
  }
  std::vector<double> values;
  for (const auto& column : columns) values.push_back(std::sqrt(dot(column, column)));
  std::sort(values.rbegin(), values.rend());
  return values;
}

double spectral_norm_of(const Dense& a) {
  return singular_values(a).front();
}

Dense random_dense(std::mt19937_64& random, std::int64_t rows, std::int64_t columns, double size) {
  std::normal_distribution<double> normal(0.0, size);
  return Dense(rows, columns).map([&](double) { return normal(random); });
}

Dense random_orthonormal(std::mt19937_64& random, std::int64_t rows, std::int64_t columns) {
  auto basis = columns_of(random_dense(random, rows, columns));
  Dense out(rows, columns);
  for (std::size_t j = 0; j < basis.size(); ++j) {
    for (int pass = 0; pass < 2; ++pass) {  // the second pass removes what rounding left of the first
      for (std::size_t k = 0; k < j; ++k) {
        const double share = dot(basis[j], basis[k]);
        for (std::size_t i = 0; i < basis[j].size(); ++i) basis[j][i] -= share * basis[k][i];
      }
    }
    const double length = std::sqrt(dot(basis[j], basis[j]));
    for (std::size_t i = 0; i < basis[j].size(); ++i) {
      basis[j][i] /= length;
      out(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j)) = basis[j][i];
    }
  }
  return out;
}

std::vector<double> spectrum_of_condition(std::int64_t count, double condition) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < count; ++i) {
    values.push_back(std::pow(condition, count > 1 ? -static_cast<double>(i) / static_cast<double>(count - 1) : 0.0));
  }
  return values;
}

Dense random_with_condition(std::mt19937_64& random, std::int64_t rows, std::int64_t columns, double condition) {
  const Dense u = random_orthonormal(random, rows, columns);
  const Dense v = random_orthonormal(random, columns, columns);
  return u * diagonal(spectrum_of_condition(columns, condition)) * v.transpose();
}

}  // namespace lomu::testing

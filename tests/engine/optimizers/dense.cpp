#include "tests/engine/optimizers/dense.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

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

Svd svd(const Dense& a) {
  if (a.rows() < a.columns()) {
    Svd turned = svd(a.transpose());
    return {turned.v, turned.values, turned.u};
  }
  auto columns = columns_of(a);
  auto rotations = columns_of(identity(a.columns()));
  bool rotated = true;
  for (int sweep = 0; sweep < 60 && rotated; ++sweep) {
    rotated = false;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      for (std::size_t j = i + 1; j < columns.size(); ++j) {
        // The rotation of the two columns is found from them and done to both matrices.
        std::vector<double>& x = columns[i];
        std::vector<double>& y = columns[j];
        const double xx = dot(x, x), yy = dot(y, y), xy = dot(x, y);
        if (std::abs(xy) <= 1e-15 * std::sqrt(xx * yy)) continue;
        const double zeta = (yy - xx) / (2.0 * xy);
        const double t = (zeta >= 0.0 ? 1.0 : -1.0) / (std::abs(zeta) + std::hypot(1.0, zeta));
        const double cosine = 1.0 / std::hypot(1.0, t), sine = cosine * t;
        for (auto* pair : {&columns, &rotations}) {
          for (std::size_t k = 0; k < (*pair)[i].size(); ++k) {
            const double old = (*pair)[i][k];
            (*pair)[i][k] = cosine * old - sine * (*pair)[j][k];
            (*pair)[j][k] = sine * old + cosine * (*pair)[j][k];
          }
        }
        rotated = true;
      }
    }
  }
  std::vector<std::size_t> order(columns.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::vector<double> sizes;
  for (const auto& column : columns) sizes.push_back(std::sqrt(dot(column, column)));
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return sizes[i] > sizes[j]; });
  Svd out{Dense(a.rows(), a.columns()), {}, Dense(a.columns(), a.columns())};
  for (std::size_t k = 0; k < order.size(); ++k) {
    const double size = sizes[order[k]];
    out.values.push_back(size);
    for (std::int64_t i = 0; i < a.rows(); ++i) {
      out.u(i, static_cast<std::int64_t>(k)) = size > 0.0 ? columns[order[k]][static_cast<std::size_t>(i)] / size : 0.0;
    }
    for (std::int64_t i = 0; i < a.columns(); ++i) {
      out.v(i, static_cast<std::int64_t>(k)) = rotations[order[k]][static_cast<std::size_t>(i)];
    }
  }
  return out;
}

Dense spectral_map(const Dense& a, const std::function<double(double)>& f) {
  Svd parts = svd(a);
  const double floor = 1e-6 * parts.values.front();
  for (double& s : parts.values) s = s > floor ? f(s) : 0.0;
  return parts.u * diagonal(parts.values) * parts.v.transpose();
}

Dense matrix_sign(const Dense& a) {
  return spectral_map(a, [](double) { return 1.0; });
}

Qr householder_qr(const Dense& a) {
  const std::int64_t m = a.rows(), n = a.columns();
  Dense r = a;
  Dense q = identity(m);
  for (std::int64_t k = 0; k < std::min(n, m - 1); ++k) {
    std::vector<double> v(static_cast<std::size_t>(m), 0.0);
    for (std::int64_t i = k; i < m; ++i) v[static_cast<std::size_t>(i)] = r(i, k);
    const double norm = std::sqrt(dot(v, v));
    v[static_cast<std::size_t>(k)] += r(k, k) >= 0.0 ? norm : -norm;
    const double vv = dot(v, v);
    if (vv == 0.0) continue;
    const auto reflect = [&](Dense& x) {  // x <- (I - 2 v v^T / v^T v) x
      for (std::int64_t j = 0; j < x.columns(); ++j) {
        double share = 0.0;
        for (std::int64_t i = k; i < m; ++i) share += v[static_cast<std::size_t>(i)] * x(i, j);
        for (std::int64_t i = k; i < m; ++i) x(i, j) -= 2.0 * share / vv * v[static_cast<std::size_t>(i)];
      }
    };
    reflect(r);
    reflect(q);
  }
  Qr out{Dense(m, n), Dense(n, n)};
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) out.q(i, j) = q(j, i);
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i; j < n; ++j) out.r(i, j) = r(i, j);
  }
  return out;
}

Dense inverse(const Dense& a) {
  const std::int64_t n = a.rows();
  Dense left = a;
  Dense right = identity(n);
  for (std::int64_t k = 0; k < n; ++k) {
    std::int64_t pivot = k;
    for (std::int64_t i = k + 1; i < n; ++i) {
      if (std::abs(left(i, k)) > std::abs(left(pivot, k))) pivot = i;
    }
    for (Dense* x : {&left, &right}) {
      for (std::int64_t j = 0; j < n; ++j) std::swap((*x)(k, j), (*x)(pivot, j));
    }
    const double scale = 1.0 / left(k, k);
    for (Dense* x : {&left, &right}) {
      for (std::int64_t j = 0; j < n; ++j) (*x)(k, j) *= scale;
    }
    for (std::int64_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = left(i, k);
      for (Dense* x : {&left, &right}) {
        for (std::int64_t j = 0; j < n; ++j) (*x)(i, j) -= factor * (*x)(k, j);
      }
    }
  }
  return right;
}

Dense stacked(const Dense& a, const Dense& b) {
  Dense out(a.rows() + b.rows(), a.columns());
  for (std::int64_t i = 0; i < out.rows(); ++i) {
    for (std::int64_t j = 0; j < a.columns(); ++j) out(i, j) = i < a.rows() ? a(i, j) : b(i - a.rows(), j);
  }
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

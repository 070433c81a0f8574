// The r x r algebra of a LoRA-Muon step, in double: roots of metrics, the matrix that turns a momentum into its step.
// Not for anything with a dimension of the model in it (tall_products.h), and not a general matrix library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace lomu {

/// A square matrix of double, row-major, zero at first.
class SmallMatrix {
 public:
  explicit SmallMatrix(std::int64_t size) : size_(size), values_(static_cast<std::size_t>(size * size), 0.0) {}
  [[nodiscard]] std::int64_t size() const { return size_; }
  double& operator()(std::int64_t i, std::int64_t j) { return values_[static_cast<std::size_t>(i * size_ + j)]; }
  const double& operator()(std::int64_t i, std::int64_t j) const {
    return values_[static_cast<std::size_t>(i * size_ + j)];
  }
  [[nodiscard]] std::span<double> values() { return values_; }
  [[nodiscard]] std::span<const double> values() const { return values_; }
  [[nodiscard]] double trace() const;

 private:
  std::int64_t size_;
  std::vector<double> values_;
};

/// Singular values of a whitened momentum below this share of the largest count as zero, and stay zero.
/// The Gram squares it to 1e-12, some thousand times what float64 leaves of a Gram's own rounding.
inline constexpr double kZeroSingularValue = 1e-6;

/// A root F of an inverse metric: F F^T = C^-1. Any root gives the same step.
struct MetricRoot {
  SmallMatrix root;
  int raises = 0;  ///< shifts that were needed before the Cholesky factorisation had only sound pivots
};

/// F = L^-T for C = L L^T. C: symmetric positive semidefinite, not zero. Where a pivot is no larger than its rounding
/// error, 1e-12 tr(C) / r is added to the diagonal, then ten times that, and so on. NumericError (at `where`) when C is
/// zero or not finite.
MetricRoot metric_root(const SmallMatrix& c, std::string_view where);

/// The damped metric C = S + c^2 T^-1, for Grams S of the partner and T of the factor itself. With T = L L^T,
/// C = L^-T (L^T S L + c^2 I) L^-1, so F = L M^-T for M M^T = L^T S L + c^2 I: T is never inverted, and the inner
/// matrix, whose eigenvalues are sigma_i(P Q^T)^2 + c^2, is as well conditioned as the damping makes it. c > 0.
MetricRoot damped_metric_root(const SmallMatrix& partner, const SmallMatrix& own, double c, std::string_view where);

/// The same metric written out, for the Newton-Schulz path, which works on C itself.
SmallMatrix damped_metric(const SmallMatrix& partner, const SmallMatrix& own, double c, std::string_view where);

/// K with msign(m F) F^T = m K, where S = m^T m and msign(Y) = Y (Y^T Y)^(-1/2).
struct StepMatrix {
  SmallMatrix k;                 ///< symmetric
  double norm_squared = 0.0;     ///< ||m K||_F^2
  std::vector<double> spectrum;  ///< singular values of m F, ascending
};

/// K = F D^(-1/2) F^T for D = F^T S F, by its eigenvalues; those under kZeroSingularValue^2 of the largest count as
/// zero. S = 0 gives K = 0. NumericError when the eigenvalues do not converge. With a `filter` f, which maps shares of
/// the largest singular value in (0, 1] to [0, 1], the singular values of m K F^-T become f(sigma / sigma_max) instead
/// of 1.
StepMatrix exact_step_matrix(const SmallMatrix& momentum_gram, const SmallMatrix& root, std::string_view where,
                             const std::function<double(double)>& filter = {});

/// Largest singular value of a factor, from its Gram.
double spectral_norm(const SmallMatrix& gram);

/// Singular values of a factor from its Gram, descending. Those under 1e-8 of the largest are rounding noise of the
/// Gram.
std::vector<double> singular_values(const SmallMatrix& gram);

/// Singular values of P Q^T from the Grams S of P and T of Q, descending, as precise: the roots of the eigenvalues of
/// S^(1/2) T S^(1/2).
std::vector<double> singular_values_of_product(const SmallMatrix& left_gram, const SmallMatrix& right_gram);

/// (S + delta I)^-1 for a symmetric positive semidefinite S. NumericError (at `where`) when S is not finite.
SmallMatrix shifted_inverse(const SmallMatrix& s, double delta, std::string_view where);

/// a = V diag(values) V^T of a symmetric a, values ascending. NumericError (at `where`) when they do not converge.
struct Eigensystem {
  SmallMatrix vectors;
  std::vector<double> values;
};
Eigensystem eigensystem(const SmallMatrix& a, std::string_view where);

/// V diag(f(values)) V^T.
SmallMatrix function_of(const Eigensystem& a, const std::function<double(double)>& f);

SmallMatrix identity(std::int64_t size);
SmallMatrix scaled(double factor, SmallMatrix a);
SmallMatrix symmetrised(const SmallMatrix& a);

/// a b; a b a^T for symmetric b, exactly symmetric; tr(a b).
SmallMatrix product(const SmallMatrix& a, const SmallMatrix& b);
SmallMatrix congruence(const SmallMatrix& a, const SmallMatrix& b);
double trace_of_product(const SmallMatrix& a, const SmallMatrix& b);

}  // namespace lomu

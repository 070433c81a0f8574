// What a pair of factors amounts to, computed from its r x r Grams alone: nothing here forms a matrix of the size of a
// weight, so it can look at every site of an adapter of any model.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lomu {

/// Singular values of scale P Q^T, descending: min(m, n, r) of them. left: P [m, r]; right: Q^T [r, n]; both row-major.
/// Values under about 1e-8 of the largest are rounding noise. Throws UsageError when a size does not fit its shape and
/// NumericError when an entry is not finite.
std::vector<double> product_spectrum(std::span<const float> left, std::span<const float> right, std::int64_t m,
                                     std::int64_t n, std::int64_t r, double scale);

/// ||A||_F^2 / ||A||_2^2 of a matrix with these singular values: how many directions it really has. 0 for the zero
/// matrix.
double stable_rank(std::span<const double> singular_values);

}  // namespace lomu

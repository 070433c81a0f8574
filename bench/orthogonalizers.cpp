// How near a step of LoRA-Muon comes to what it promises, all singular values of its change of the product equal, by
// the exact path and by the paper's polynomials. Prints JSON: the smallest and largest singular value, relative to the
// promise, for metrics C and whitened momenta Y of growing condition number. The table in docs/lora_muon.md is made
// with it.
//
// Everything is r x r: C = V L V^T with a random basis V, and a momentum m = Y C^(1/2) as a gradient has it (g_P = s G
// Q).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <random>
#include <string>

#include "engine/optimizers/newton_schulz.h"
#include "engine/optimizers/small_matrix.h"

namespace {

using lomu::SmallMatrix;

/// Orthogonal: Gram-Schmidt on normal entries, twice.
SmallMatrix random_basis(std::int64_t size, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  SmallMatrix q(size);
  for (double& x : q.values()) x = normal(random);
  for (std::int64_t i = 0; i < size; ++i) {
    const auto dot = [&](std::int64_t a, std::int64_t b) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < size; ++k) sum += q(a, k) * q(b, k);
      return sum;
    };
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t j = 0; j < i; ++j) {
        const double share = dot(i, j);
        for (std::int64_t k = 0; k < size; ++k) q(i, k) -= share * q(j, k);
      }
    }
    const double length = std::sqrt(dot(i, i));
    for (std::int64_t k = 0; k < size; ++k) q(i, k) /= length;
  }
  return q;
}

/// Diagonal entries from 1 down to condition^-power, evenly in their logarithms.
SmallMatrix diagonal(std::int64_t size, double condition, double power) {
  SmallMatrix d(size);
  for (std::int64_t i = 0; i < size; ++i) {
    d(i, i) = std::pow(condition, size > 1 ? -power * static_cast<double>(i) / static_cast<double>(size - 1) : 0.0);
  }
  return d;
}

struct Extremes {
  double least, largest;
};

/// Of the singular values of m K C^(1/2), which should all be 1.
Extremes extremes(const SmallMatrix& k, const SmallMatrix& momentum_gram, const SmallMatrix& metric) {
  const std::vector<double> sigma = lomu::singular_values_of_product(lomu::congruence(k, momentum_gram), metric);
  return {sigma.back(), sigma.front()};
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t rank = 16;
  CLI::App app("Accuracy of the exact and the polynomial step, as JSON");
  app.add_option("--rank", rank, "rank of the pair")->check(CLI::Range(1, 256));
  CLI11_PARSE(app, argc, argv);

  std::mt19937_64 random(1);
  std::string separator = "[\n";
  const auto measure = [&](double metric_condition, double momentum_condition) {
    const SmallMatrix v = random_basis(rank, random);
    const SmallMatrix u = random_basis(rank, random);
    const SmallMatrix metric = lomu::congruence(v, diagonal(rank, metric_condition, 1.0));
    const SmallMatrix root = lomu::congruence(v, diagonal(rank, metric_condition, 0.5));
    const SmallMatrix whitened_gram = lomu::congruence(u, diagonal(rank, momentum_condition, 2.0));
    const SmallMatrix momentum_gram = lomu::congruence(root, whitened_gram);
    const Extremes exact = extremes(lomu::exact_step_matrix(momentum_gram, lomu::metric_root(metric, "C").root, "m").k,
                                    momentum_gram, metric);
    const Extremes polynomial =
        extremes(lomu::newton_schulz_step_matrix(momentum_gram, metric).k, momentum_gram, metric);
    fmt::print(
        "{}  {{\"rank\": {}, \"condition_of_metric\": {:.0e}, \"condition_of_whitened_momentum\": {:.0e}, "
        "\"exact\": [{:.9f}, {:.9f}], \"newton_schulz\": [{:.4f}, {:.4f}]}}",
        separator, rank, metric_condition, momentum_condition, exact.least, exact.largest, polynomial.least,
        polynomial.largest);
    separator = ",\n";
  };
  for (const double condition : {1e0, 1e2, 1e3, 1e4, 1e5, 1e6, 1e8}) measure(condition, 10.0);
  for (const double condition : {1e0, 1e1, 1e2, 1e3, 1e4, 1e5}) measure(10.0, condition);
  fmt::print("\n]\n");
  return 0;
}

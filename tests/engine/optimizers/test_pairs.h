// Pairs of factors for the tests of optimizers: random arrays that own their memory, and the same pair as a problem for
// the double-precision reference.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/optimizers/lora_muon_reference.h"
#include "engine/optimizers/optimizer.h"
#include "tests/engine/optimizers/dense.h"

namespace lomu::testing {

/// A pair with its gradients and state, all zero at first. Values are rounded to float32 when they are set.
struct OwnedPair {
  std::string name = "layers.0.q_proj";
  std::int64_t m, n, r;
  double scale = 1.0;
  std::vector<float> left, right, grad_left, grad_right, state;
  bool left_started_zero = false;
  bool right_started_zero = false;

  bool dense = false;  ///< the left arrays are a matrix [m, n], the right ones are empty

  OwnedPair(std::int64_t rows, std::int64_t columns, std::int64_t rank);
  /// A dense matrix.
  OwnedPair(std::int64_t rows, std::int64_t columns);

  /// Sizes the state for this optimizer, all zero.
  void give_state(const Optimizer& optimizer);
  [[nodiscard]] PairView view();
};

/// P as m x r, and Q as n x r.
Dense left_of(const OwnedPair& p);
Dense right_of(const OwnedPair& p);
void set_left(OwnedPair& p, const Dense& x);
void set_right(OwnedPair& p, const Dense& q);
void set_gradients(OwnedPair& p, const Dense& left, const Dense& right);
/// LoRA-Muon's momenta; the right one as n x r.
void set_momenta(OwnedPair& p, const Dense& left, const Dense& right);

/// A pair with random factors of the size training has, momenta and gradients.
OwnedPair random_pair(std::mt19937_64& random, std::int64_t m, std::int64_t n, std::int64_t r);

/// A random dense matrix with a gradient.
OwnedPair random_matrix(std::mt19937_64& random, std::int64_t m, std::int64_t n);

/// The step that `options` would make of this pair, as a problem for the reference.
ReferenceProblem problem_of(const OwnedPair& p, const OptimizerOptions& options);

StepReport step_once(Optimizer& optimizer, OwnedPair& pair, const StepInfo& info);

/// ||got - expected|| / (||expected - old|| + 0.119 ||expected||): an error of a step where float32 storage is no
/// error.
double step_error(const Dense& got, const Dense& expected, const Dense& old);

}  // namespace lomu::testing

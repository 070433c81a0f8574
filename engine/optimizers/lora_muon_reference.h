// The step of LoRA-Muon from its definition, with every number a double and every root and sign taken by a singular
// value decomposition of the matrix itself: no Gram, no Cholesky factor, no eigen-decomposition. This is the
// specification that the fast path is tested against; it is not meant to be fast.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace lomu {

/// The factors and momenta of a pair: left [m, r], right [n, r] (Q itself, not PEFT's transpose), row-major.
struct ReferenceState {
  std::vector<double> left;
  std::vector<double> right;
  std::vector<double> momentum_left;
  std::vector<double> momentum_right;
};

/// One step: the state before it, the gradients, and the constants.
struct ReferenceProblem {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t r = 0;
  double lr = 0.0;
  double scale = 1.0;
  double momentum = 0.9;
  double weight_decay = 0.0;
  bool nesterov = false;
  std::optional<double> damping_left;   ///< rho in the metric of P's step: where Q started at zero
  std::optional<double> damping_right;  ///< rho in the metric of Q's step: where P started at zero
  ReferenceState before;
  std::vector<double> grad_left;   ///< [m, r]
  std::vector<double> grad_right;  ///< [n, r]
};

/// The state after one step. NumericError when a metric is singular.
ReferenceState reference_step(const ReferenceProblem& problem);

}  // namespace lomu

// LoRA-RITE (Yen and others, arXiv 2410.20625): Adam-like moments of the gradient of W itself, seen in the orthonormal
// coordinates of the partner, so that they mean the same however the product is split between the factors. For P, with
// Z = s P Q^T and Q = U R:
//   g    = g_P R^-1 / s                           the unmagnified gradient: df/dZ times the basis U
//   T    = U^T U_last                             from the coordinates of the last step to these
//   rho <- b2 (rho + d(V, T V T^T))               escaped mass: d is the largest loss of an eigenvalue
//   V   <- b2 T V T^T + (1 - b2) g^T g / m        second moments, r x r, mean over the rows as Adam's are per entry
//   M   <- b1 M T^T + (1 - b1) g (V + rho I)^-1/2 the root + eps in its denominator, as Adam's
//   P   <- (1 - lr lambda) P - (lr / s) M R^-T
// and likewise Q, both from the old factors; b1, b2 are the decays with Adam's bias correction worked in,
// beta (1 - beta^(t-1)) / (1 - beta^t). As published but for the clipping and skipping of gradients in the authors'
// program, which are left out, and for three things that are ours:
//  - R^-1 is the inverse Cholesky root of the partner's Gram in double. Any root is a QR with another U.
//  - Zero starts, for which the paper has no rule (with P = 0 the second step of Q would have ||dQ|| / ||Q|| about 1
//  for
//    every lr): the Gram of a partner that started at zero is damped as LoRA-Muon's is, by c^2 (Q^T Q)^-1, which is a
//    QR of P with c Q (Q^T Q)^-1 put under it. c = lr sqrt(n) / (rho s) bounds the relative step of Q by about
//    damping = rho, as sqrt(n) is the spectral size of a typical M. When lr changes c, state is carried over in two
//    legs: to the new factors with the old c, then to the new c.
//  - The change of coordinates is computed where both factors are at hand, at the end of a step, and kept: no basis is.
// State: 1 float a parameter and per side 2 r^2 + 2. A step with lr = 0 leaves everything as it is. Invariant under
// (P R, Q R^-T) for every invertible R. Cost: LoRA-Muon's, and about twice its tall products.
#pragma once

#include "engine/optimizers/optimizer.h"

namespace lomu {

class LoraRite final : public Optimizer {
 public:
  /// options: already checked by make_optimizer.
  explicit LoraRite(const OptimizerOptions& options) : options_(options) {}

  /// Of each side: "momentum" (in coordinates of the last step), "second_moment_root" (N with V = N N^T, in those of
  /// the next one: a root, so that float32 keeps small eigenvalues), "transport" (T), "escaped" (rho), "damping" (c).
  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  /// Refuses what LoRA-Muon refuses.
  void check(std::span<const PairView> pairs) const override;
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  OptimizerOptions options_;
};

}  // namespace lomu

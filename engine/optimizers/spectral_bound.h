// A bound on what an adapter may do: after every step the singular values of s P Q^T are brought to at most b, by r x r
// work alone. Then ||(W - W0) x|| <= b ||x|| for every input of the site: the adapted layer is nowhere further from its
// base than b, in the Lipschitz sense. An optimizer around another one. Mathematics: docs/spectral_bound.md.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/optimizers/optimizer.h"

namespace lomu {

/// What a product was before it was clipped.
struct ClippedProduct {
  double largest = 0;           ///< ||s P Q^T||_2, or an upper bound of it that was small enough
  std::int64_t directions = 0;  ///< singular values that were brought down
};

/// Replaces P Q^T = U S V^T by U f(S) V^T, f of clip, by multiplying P and Q from the right, each by the same share.
/// Values that are not brought down keep their directions and sizes. Exact up to the float32 storage of the factors.
/// hard: f(x) = min(x, b). soft: f(x) = x up to b / 2, above it b / 2 (1 + tanh(2 x / b - 1)), which stays below b.
/// b: on s P Q^T, positive.
ClippedProduct clip_product(const PairView& pair, double b, SpectralClip clip);

class Bounded final : public Optimizer {
 public:
  /// options.spectral_bound is set. Throws as make_optimizer.
  explicit Bounded(const OptimizerOptions& options);

  [[nodiscard]] std::span<const StateSlot> state_slots(const ParameterShape& shape) const override;
  void check_all(std::span<const ParameterShape> all) const override;
  void check(std::span<const PairView> pairs) const override;
  /// The step of the optimizer inside, then the bound on every pair; weights trained in full have none.
  void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) override;

 private:
  std::unique_ptr<Optimizer> inner_;
  double bound_;
  SpectralClip clip_;
};

}  // namespace lomu

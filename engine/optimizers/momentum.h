// A matrix that follows its momentum in some coordinates of its short side: W <- keep W + move (direction K), K r x r.
// What LoRA-Muon, Muon and Spectron share. The r x r matrix K, which is all that tells them apart, comes from the Gram
// of the direction; here are the two passes over the long side.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "engine/optimizers/optimizer.h"
#include "engine/optimizers/small_matrix.h"
#include "engine/optimizers/tall_products.h"

namespace lomu {

/// The state of a pair; the right one of a dense matrix is empty.
inline constexpr std::array<StateSlot, 2> kMomentumSlots{
    {{"momentum_left", Extent::kLeft}, {"momentum_right", Extent::kRight}}};

/// m' = beta m + gain g; the step follows m', or with Nesterov beta m' + gain g.
struct MomentumRule {
  double beta = 0.0;
  double gain = 1.0;
  bool nesterov = false;

  [[nodiscard]] double momentum(float m, float g) const { return beta * m + gain * g; }
  [[nodiscard]] double direction(double updated, float g) const {
    return nesterov ? beta * updated + gain * g : updated;
  }
};

/// From options.momentum, nesterov and max_grad_norm: gain = (1 - beta) x the factor that clips the gradient.
MomentumRule momentum_rule(const OptimizerOptions& options, const StepInfo& info);

/// A factor, or a dense matrix, with what moves it.
struct MovingMatrix {
  FactorShape shape;
  float* factor = nullptr;
  const float* grad = nullptr;
  float* momentum = nullptr;
};

/// X^T X (of a wide matrix: X X^T) of the direction X of this step, and the squared norm of the gradient. Nothing is
/// written. The momentum enters as it is before rounding to float32: rounding it first would be amplified by its
/// condition number, at 1e4 to 2e-4 of the step.
struct DirectionGram {
  SmallMatrix gram;
  double grad_norm_squared = 0.0;
};
DirectionGram direction_gram(const MovingMatrix& matrix, const MomentumRule& rule);

/// X^T D of the factor X and the direction D of this step, for telemetry. Nothing is written.
SmallMatrix factor_direction_gram(const MovingMatrix& matrix, const MomentumRule& rule);

/// momentum <- m', factor <- keep factor + move (direction K), reading each old value once and rounding once. K:
/// symmetric.
void apply_step(const MovingMatrix& matrix, const MomentumRule& rule, const SmallMatrix& k, double keep, double move);

/// NumericError at `where` when the Gram of `what` ("the left factor") has a trace that is not finite.
void require_finite_factor(const SmallMatrix& gram, std::string_view what, const std::string& where);
/// Squared Frobenius norm of the factor; NumericError likewise.
double finite_norm_squared(const MovingMatrix& matrix, std::string_view what, const std::string& where);
void require_finite_direction(const SmallMatrix& gram, std::string_view what, const std::string& where);

}  // namespace lomu

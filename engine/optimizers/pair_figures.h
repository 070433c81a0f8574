// What telemetry says of one pair at one step: a fixed list of numbers, each with a name, all from r x r Grams. Those
// of the factors are computed for any optimizer; those of the step only where the optimizer says what it made the step
// from. No file, no ranks: the trainer gathers and writes them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "engine/optimizers/small_matrix.h"

namespace lomu {

struct PairView;

/// P and Q are the factors before the step, Y = m F the whitened momentum of a side, dW the change of s P Q^T without
/// weight decay, eta the spectral step size that the optimizer promises.
enum class Figure : std::uint8_t {
  kProductLargest,  ///< singular values of s P Q^T
  kProductMedian,
  kProductSmallest,
  kStableRank,      ///< of s P Q^T
  kConditionLeft,   ///< of P^T P
  kConditionRight,  ///< of Q^T Q
  kNormLeft,        ///< ||P||_F, which goes with the gauge
  kNormRight,       ///< ||Q||_F
  kRelativeStepLeft,
  kRelativeStepRight,
  kStepSize,              ///< ||dW||_2 / eta
  kCrossTerm,             ///< ||s dP dQ^T||_2 / eta
  kMomentumLeftSmallest,  ///< quantiles of the singular values of Y / ||Y||_F, that of P's step
  kMomentumLeftQ10,
  kMomentumLeftMedian,
  kMomentumLeftQ90,
  kMomentumLeftLargest,
  kMomentumRightSmallest,
  kMomentumRightQ10,
  kMomentumRightMedian,
  kMomentumRightQ90,
  kMomentumRightLargest,
  kMissedLeft,   ///< share of Y's directions under kMissedByNewtonSchulz
  kMissedRight,  ///< likewise of Q's step
  kCholeskyRaises,
};
inline constexpr std::size_t kFigures = 25;

/// "product_largest", "momentum_left_q10" and so on, as in metrics.jsonl.
std::string_view name_of(Figure figure);

/// What five steps of Muon's Newton-Schulz quintic do not bring near 1: 3.4445^5 x 1.07e-3 is a half, and from there on
/// a singular value has left the polynomial's straight part.
inline constexpr double kMissedByNewtonSchulz = 1.07e-3;

class PairFigures {
 public:
  PairFigures() { values_.fill(kNone); }
  double& operator[](Figure figure) { return values_[static_cast<std::size_t>(figure)]; }
  double operator[](Figure figure) const { return values_[static_cast<std::size_t>(figure)]; }
  [[nodiscard]] std::span<double, kFigures> values() { return values_; }
  [[nodiscard]] std::span<const double, kFigures> values() const { return values_; }

 private:
  /// A figure that does not apply, or has no finite value, is NaN.
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::array<double, kFigures> values_;
};

/// The value below which the share q of `values` lies, interpolated; `values` ascending, not empty.
double quantile(std::span<const double> values, double q);

/// Spectrum, stable rank and conditions of every pair as it is now; nothing of dense matrices. Nothing is checked:
/// factors that are not finite give figures that are not.
std::vector<PairFigures> describe_factors(std::span<const PairView> pairs);

/// Which momentum: that of P, or of a dense matrix; or that of Q.
enum class MomentumSide : std::uint8_t { kLeft, kRight };

/// The figures of the momentum Y of a side, from its singular values, ascending; none for a momentum that is zero.
void describe_momentum(MomentumSide side, std::span<const double> singular_values, PairFigures& figures);

/// What one side of a LoRA-Muon step was made from: dX = -reach (direction K) for a factor X.
struct SideOfStep {
  const SmallMatrix& factor;         ///< X^T X
  const SmallMatrix& cross;          ///< X^T direction
  const SmallMatrix& direction;      ///< direction^T direction
  const SmallMatrix& k;              ///< K
  std::span<const double> whitened;  ///< singular values of Y, ascending; empty where there is no step
};

/// The figures of the step dP, dQ with spectral step size eta > 0 and reach = eta / 2s.
void describe_step(const SideOfStep& left, const SideOfStep& right, double scale, double eta, PairFigures& figures);

}  // namespace lomu

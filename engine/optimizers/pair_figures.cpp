#include "engine/optimizers/pair_figures.h"

#include <algorithm>
#include <cmath>

#include "engine/optimizers/optimizer.h"
#include "engine/optimizers/parallel_pairs.h"
#include "engine/optimizers/tall_products.h"
#include "engine/optimizers/telemetry.h"

namespace lomu {
namespace {

/// NaN where the smallest singular value is lost in the Gram's rounding.
double condition_of(const SmallMatrix& gram) {
  const std::vector<double> sigma = singular_values(gram);
  constexpr double kNoise = 1e-8;
  if (!(sigma.back() > kNoise * sigma.front())) return std::numeric_limits<double>::quiet_NaN();
  const double ratio = sigma.front() / sigma.back();
  return ratio * ratio;
}

PairFigures describe_pair(const PairView& pair) {
  PairFigures figures;
  const SmallMatrix left = gram_of({false, pair.m, pair.r}, pair.left);
  const SmallMatrix right = gram_of({true, pair.n, pair.r}, pair.right);
  std::vector<double> sigma = singular_values_of_product(left, right);
  sigma.resize(static_cast<std::size_t>(std::min({pair.m, pair.n, pair.r})));
  for (double& value : sigma) value *= pair.scale;
  figures[Figure::kStableRank] = stable_rank(sigma);
  std::reverse(sigma.begin(), sigma.end());
  figures[Figure::kProductSmallest] = sigma.front();
  figures[Figure::kProductMedian] = quantile(sigma, 0.5);
  figures[Figure::kProductLargest] = sigma.back();
  figures[Figure::kConditionLeft] = condition_of(left);
  figures[Figure::kConditionRight] = condition_of(right);
  figures[Figure::kNormLeft] = std::sqrt(left.trace());
  figures[Figure::kNormRight] = std::sqrt(right.trace());
  return figures;
}

/// A factor beside its step, both scaled to norm 1 where they are not zero, so that their Gram can be decomposed
/// however short the step is.
struct Joint {
  SmallMatrix step_gram;  ///< dX^T dX, as it is
  SmallMatrix gram;       ///< [X / |X|, dX / |dX|]^T [X / |X|, dX / |dX|]
  double factor_norm;
  double step_norm;
};

Joint joint_of(const SideOfStep& side, double reach) {
  const std::int64_t r = side.factor.size();
  Joint joint{scaled(reach * reach, congruence(side.k, side.direction)), SmallMatrix(2 * r),
              std::sqrt(side.factor.trace()), 0.0};
  joint.step_norm = std::sqrt(joint.step_gram.trace());
  const auto inverse = [](double norm) { return norm > 0.0 ? 1.0 / norm : 0.0; };
  const double of_factor = inverse(joint.factor_norm);
  const double of_step = inverse(joint.step_norm);
  const SmallMatrix cross = product(side.cross, side.k);  // of X and -dX / reach
  for (std::int64_t i = 0; i < r; ++i) {
    for (std::int64_t j = 0; j < r; ++j) {
      joint.gram(i, j) = side.factor(i, j) * of_factor * of_factor;
      joint.gram(r + i, r + j) = joint.step_gram(i, j) * of_step * of_step;
      joint.gram(i, r + j) = joint.gram(r + j, i) = -reach * cross(i, j) * of_factor * of_step;
    }
  }
  return joint;
}

/// ||dP Q^T + P dQ^T + dP dQ^T||_2: that of [P, dP] N [Q, dQ]^T, where N says which blocks meet.
double norm_of_change(const Joint& left, const Joint& right) {
  const std::int64_t r = left.step_gram.size();
  SmallMatrix n(2 * r);
  for (std::int64_t i = 0; i < r; ++i) {
    n(i, r + i) = left.factor_norm * right.step_norm;
    n(r + i, i) = left.step_norm * right.factor_norm;
    n(r + i, r + i) = left.step_norm * right.step_norm;
  }
  return singular_values_of_product(left.gram, congruence(n, right.gram)).front();
}

}  // namespace

std::string_view name_of(Figure figure) {
  static constexpr std::array<std::string_view, kFigures> kNames = {"product_largest",
                                                                    "product_median",
                                                                    "product_smallest",
                                                                    "stable_rank",
                                                                    "condition_left",
                                                                    "condition_right",
                                                                    "norm_left",
                                                                    "norm_right",
                                                                    "relative_step_left",
                                                                    "relative_step_right",
                                                                    "step_size",
                                                                    "cross_term",
                                                                    "momentum_left_smallest",
                                                                    "momentum_left_q10",
                                                                    "momentum_left_median",
                                                                    "momentum_left_q90",
                                                                    "momentum_left_largest",
                                                                    "momentum_right_smallest",
                                                                    "momentum_right_q10",
                                                                    "momentum_right_median",
                                                                    "momentum_right_q90",
                                                                    "momentum_right_largest",
                                                                    "missed_left",
                                                                    "missed_right",
                                                                    "cholesky_raises"};
  return kNames[static_cast<std::size_t>(figure)];
}

double quantile(std::span<const double> values, double q) {
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  const double share = place - static_cast<double>(below);
  return (1.0 - share) * values[below] + share * values[above];
}

std::vector<PairFigures> describe_factors(std::span<const PairView> pairs) {
  std::vector<PairFigures> all(pairs.size());
  for_each_pair(pairs.size(), [&](std::size_t i) {
    if (!pairs[i].dense()) all[i] = describe_pair(pairs[i]);
  });
  return all;
}

void describe_momentum(MomentumSide side, std::span<const double> singular_values, PairFigures& figures) {
  double sum = 0.0;
  for (const double value : singular_values) sum += value * value;
  const double norm = std::sqrt(sum);
  if (!(norm > 0.0)) return;
  const bool left = side == MomentumSide::kLeft;
  const auto first = static_cast<std::size_t>(left ? Figure::kMomentumLeftSmallest : Figure::kMomentumRightSmallest);
  constexpr std::array kShares = {0.0, 0.1, 0.5, 0.9, 1.0};
  for (std::size_t i = 0; i < kShares.size(); ++i) {
    figures.values()[first + i] = quantile(singular_values, kShares[i]) / norm;
  }
  const auto count =
      std::ranges::count_if(singular_values, [&](double value) { return value < kMissedByNewtonSchulz * norm; });
  figures[left ? Figure::kMissedLeft : Figure::kMissedRight] =
      static_cast<double>(count) / static_cast<double>(singular_values.size());
}

void describe_step(const SideOfStep& left, const SideOfStep& right, double scale, double eta, PairFigures& figures) {
  describe_momentum(MomentumSide::kLeft, left.whitened, figures);
  describe_momentum(MomentumSide::kRight, right.whitened, figures);
  const double reach = eta / (2.0 * scale);
  const Joint p = joint_of(left, reach);
  const Joint q = joint_of(right, reach);
  figures[Figure::kStepSize] = scale * norm_of_change(p, q) / eta;
  figures[Figure::kCrossTerm] = scale * singular_values_of_product(p.step_gram, q.step_gram).front() / eta;
}

}  // namespace lomu

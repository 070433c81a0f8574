#include "engine/optimizers/lora_muon.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <string>

#include "engine/optimizers/gauge_balance.h"
#include "engine/optimizers/momentum.h"
#include "engine/optimizers/newton_schulz.h"
#include "engine/optimizers/parallel_pairs.h"
#include "engine/optimizers/small_matrix.h"
#include "kernels/error.h"

namespace lomu {
namespace {

/// What is known about a factor before anything is written.
struct HalfGrams {
  SmallMatrix factor;
  SmallMatrix direction;
  double grad_norm_squared;
};

HalfGrams grams_of(const MovingMatrix& half, const MomentumRule& rule) {
  DirectionGram direction = direction_gram(half, rule);
  return {gram_of(half.shape, half.factor), std::move(direction.gram), direction.grad_norm_squared};
}

/// Empty for the plain sign, which then costs nothing.
std::function<double(double)> filter_of(const OptimizerOptions& options) {
  switch (options.filter) {
    case SpectralFilter::kSign: return {};
    case SpectralFilter::kDamped:
      return [tau = options.filter_tau](double share) { return share / std::hypot(share, tau); };
    case SpectralFilter::kPower: return [p = options.filter_power](double share) { return std::pow(share, p); };
  }
  return {};
}

/// The r x r part: K for the factor whose partner has the Gram `partner`. damping: c of the damped metric, 0 for none.
StepMatrix solve(const OptimizerOptions& options, const HalfGrams& own, const SmallMatrix& partner, double damping,
                 std::string_view where, int& raises) {
  if (own.direction.trace() == 0.0) return StepMatrix{SmallMatrix(partner.size()), 0.0, {}};
  if (damping == 0.0 && partner.trace() == 0.0) {
    throw NumericError("a factor is zero, so the step of its partner has no metric", std::string(where),
                       "a factor may be zero only when it started so and damping is on");
  }
  if (options.orthogonalizer == Orthogonalizer::kNewtonSchulz) {
    const SmallMatrix metric = damping > 0.0 ? damped_metric(partner, own.factor, damping, where) : partner;
    return newton_schulz_step_matrix(own.direction, metric);
  }
  const MetricRoot root =
      damping > 0.0 ? damped_metric_root(partner, own.factor, damping, where) : metric_root(partner, where);
  raises += root.raises;
  return exact_step_matrix(own.direction, root.root, where, filter_of(options));
}

/// The singular values of a whitened momentum. The recursions do not have them: then they are computed as the exact
/// step would.
std::vector<double> whitened_spectrum(const StepMatrix& step, const HalfGrams& own, const SmallMatrix& partner,
                                      double damping, std::string_view where) {
  if (!step.spectrum.empty() || own.direction.trace() == 0.0) return step.spectrum;
  const MetricRoot root =
      damping > 0.0 ? damped_metric_root(partner, own.factor, damping, where) : metric_root(partner, where);
  return exact_step_matrix(own.direction, root.root, where).spectrum;
}

PairReport step_pair(const PairView& pair, const StepInfo& info, const OptimizerOptions& options) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const MovingMatrix left{
      {false, pair.m, pair.r}, pair.left, pair.grad_left, state_slot(pair, kMomentumSlots, 0).data()};
  const MovingMatrix right{
      {true, pair.n, pair.r}, pair.right, pair.grad_right, state_slot(pair, kMomentumSlots, 1).data()};
  const MomentumRule rule = momentum_rule(options, info);

  const HalfGrams left_grams = grams_of(left, rule);
  const HalfGrams right_grams = grams_of(right, rule);
  require_finite_factor(left_grams.factor, "the left factor", where);
  require_finite_direction(left_grams.direction, "the left factor", where);
  require_finite_factor(right_grams.factor, "the right factor", where);
  require_finite_direction(right_grams.direction, "the right factor", where);

  PairReport report;
  report.grad_norm_squared = left_grams.grad_norm_squared + right_grams.grad_norm_squared;
  StepMatrix left_step{SmallMatrix(pair.r), 0.0, {}};
  StepMatrix right_step = left_step;
  const double eta = spectral_step_size(options, info.lr, pair.m, pair.n, pair.r);
  if (eta > 0.0) {
    const double c = options.damping ? eta / (2.0 * *options.damping * pair.scale) : 0.0;
    const double left_damping = pair.right_started_zero ? c : 0.0;
    const double right_damping = pair.left_started_zero ? c : 0.0;
    left_step = solve(options, left_grams, right_grams.factor, left_damping, where, report.cholesky_raises);
    right_step = solve(options, right_grams, left_grams.factor, right_damping, where, report.cholesky_raises);
    if (info.telemetry) {
      const SmallMatrix left_cross = factor_direction_gram(left, rule);
      const SmallMatrix right_cross = factor_direction_gram(right, rule);
      const auto left_spectrum = whitened_spectrum(left_step, left_grams, right_grams.factor, left_damping, where);
      const auto right_spectrum = whitened_spectrum(right_step, right_grams, left_grams.factor, right_damping, where);
      describe_step({left_grams.factor, left_cross, left_grams.direction, left_step.k, left_spectrum},
                    {right_grams.factor, right_cross, right_grams.direction, right_step.k, right_spectrum}, pair.scale,
                    eta, report.figures);
    }
  }

  // Split decay: each factor shrinks by q and its step grows by 1 / q, so that the product decays by q^2 = 1 - lambda
  // lr and its first-order change is that of the undecayed step. Decay goes by lr itself, whatever multiplies the step.
  const double q = std::sqrt(1.0 - options.weight_decay * info.lr);
  const double reach = eta / (2.0 * pair.scale);
  apply_step(left, rule, left_step.k, q, -reach / q);
  apply_step(right, rule, right_step.k, q, -reach / q);

  const double left_norm_squared = reach * reach * left_step.norm_squared;
  const double right_norm_squared = reach * reach * right_step.norm_squared;
  report.update_norm_squared = left_norm_squared + right_norm_squared;
  report.relative_step_left = relative_step(left_norm_squared, left_grams.factor.trace());
  report.relative_step_right = relative_step(right_norm_squared, right_grams.factor.trace());
  return report;
}

}  // namespace

std::span<const StateSlot> LoraMuon::state_slots(const ParameterShape& /*shape*/) const {
  return kMomentumSlots;
}

void LoraMuon::check(std::span<const PairView> pairs) const {
  refuse_dense(pairs, "lora_muon");
  check_pairs(pairs, *this);
  check_metric_exists(pairs, options_, "lora_muon");
}

void LoraMuon::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_pair(pairs[i], info, options_); });
  if (options_.balance_every > 0 && info.step % options_.balance_every == 0) {
    for_each_pair(pairs.size(), [&](std::size_t i) {
      balance_gauge(pairs[i], state_slot(pairs[i], kMomentumSlots, 0), state_slot(pairs[i], kMomentumSlots, 1));
    });
  }
}

void check_metric_exists(std::span<const PairView> pairs, const OptimizerOptions& options, std::string_view optimizer) {
  for (const PairView& pair : pairs) {
    const std::string where(pair.name);
    if (pair.r > std::min(pair.m, pair.n)) {
      throw UsageError(
          fmt::format("rank {} is larger than the smaller side of a {} x {} weight", pair.r, pair.m, pair.n), where,
          fmt::format("{} needs rank <= min(in, out): lower the rank, leave the site out, or use adamw", optimizer));
    }
    if (pair.left_started_zero && pair.right_started_zero) {
      throw UsageError("both factors start at zero, so both gradients stay zero", where,
                       "start one of them away from zero");
    }
    if (!options.damping && (pair.left_started_zero || pair.right_started_zero)) {
      throw UsageError(
          fmt::format(
              "the {} factor starts at zero and damping is off: the first steps of its partner would have no bound "
              "and throw its start away",
              pair.left_started_zero ? "left" : "right"),
          where, "set optimizer.damping (0.1 is a good value), or start from balanced non-zero factors");
    }
  }
}

double spectral_step_size(const OptimizerOptions& options, double lr, std::int64_t m, std::int64_t n, std::int64_t r) {
  const auto rows = static_cast<double>(m);
  const auto columns = static_cast<double>(n);
  const auto rank = static_cast<double>(r);
  switch (options.multiplier) {
    case StepMultiplier::kNone: return lr;
    case StepMultiplier::kFrobenius: return lr / std::sqrt(rank);
    case StepMultiplier::kSqrtMOverN: return lr * std::sqrt(rows / columns);
    case StepMultiplier::kRms: return lr * 0.2 * std::sqrt(rows * columns / rank);
    case StepMultiplier::kRmsOverWidth:
      return lr * std::sqrt(rows * columns / rank) / static_cast<double>(options.hidden_size);
  }
  return lr;
}

}  // namespace lomu

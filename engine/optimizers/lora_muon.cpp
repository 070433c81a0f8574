#include "engine/optimizers/lora_muon.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <string>

#include "engine/optimizers/fixed_order_sum.h"
#include "engine/optimizers/gauge_balance.h"
#include "engine/optimizers/newton_schulz.h"
#include "engine/optimizers/parallel_pairs.h"
#include "engine/optimizers/small_matrix.h"
#include "engine/optimizers/tall_products.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr std::array<StateSlot, 2> kSlots{{{"momentum_left", Extent::kLeft}, {"momentum_right", Extent::kRight}}};

/// One factor of a pair with what moves it.
struct Half {
  FactorShape shape;
  float* factor;
  const float* grad;
  float* momentum;
};

/// m' = beta m + gain g; the step follows m', or with Nesterov beta m' + gain g.
struct MomentumRule {
  double beta;
  double gain;
  bool nesterov;

  [[nodiscard]] double momentum(float m, float g) const { return beta * m + gain * g; }
  [[nodiscard]] double direction(double updated, float g) const {
    return nesterov ? beta * updated + gain * g : updated;
  }
};

/// What is known about a factor before anything is written.
struct HalfGrams {
  SmallMatrix factor;
  SmallMatrix direction;
  double grad_norm_squared;
};

/// The momentum enters its Gram as it is before rounding to float32. Rounding it first would be amplified by its
/// condition number: at 1e4 that costs 2e-4 of the step.
HalfGrams grams_of(const Half& half, const MomentumRule& rule) {
  GramResult direction = gram_from_runs(half.shape, [&half, rule](const Run& run, double* panel) {
    const float* m = half.momentum + run.factor;
    const float* g = half.grad + run.factor;
    double* to = panel + run.panel;
#pragma omp simd
    for (std::int64_t i = 0; i < run.count; ++i) to[i] = rule.direction(rule.momentum(m[i], g[i]), g[i]);
    return sum_of_squares({g, static_cast<std::size_t>(run.count)});
  });
  return {gram_of(half.shape, half.factor), std::move(direction.gram), direction.side_sum};
}

/// momentum <- m', factor <- keep factor + move (direction K), reading each old value once and rounding once.
void apply(const Half& half, const MomentumRule& rule, const SmallMatrix& k, double keep, double move) {
  const auto load = [&half, rule](const Run& run, double* panel) {
    float* m = half.momentum + run.factor;
    const float* g = half.grad + run.factor;
    double* to = panel + run.panel;
#pragma omp simd
    for (std::int64_t i = 0; i < run.count; ++i) {
      const double updated = rule.momentum(m[i], g[i]);
      to[i] = rule.direction(updated, g[i]);
      m[i] = static_cast<float>(updated);
    }
  };
  const auto store = [&half, keep, move](const Run& run, const double* product) {
    float* x = half.factor + run.factor;
    const double* from = product + run.panel;
#pragma omp simd
    for (std::int64_t i = 0; i < run.count; ++i) x[i] = static_cast<float>(keep * x[i] + move * from[i]);
  };
  multiply(half.shape, k, load, store);
}

/// The r x r part: K for the factor whose partner has the Gram `partner`. damping: c of the damped metric, 0 for none.
StepMatrix solve(Orthogonalizer orthogonalizer, const HalfGrams& own, const SmallMatrix& partner, double damping,
                 std::string_view where, int& raises) {
  if (own.direction.trace() == 0.0) return StepMatrix{SmallMatrix(partner.size()), 0.0, {}};
  if (damping == 0.0 && partner.trace() == 0.0) {
    throw NumericError("a factor is zero, so the step of its partner has no metric", std::string(where),
                       "a factor may be zero only when it started so and damping is on");
  }
  if (orthogonalizer == Orthogonalizer::kNewtonSchulz) {
    const SmallMatrix metric = damping > 0.0 ? damped_metric(partner, own.factor, damping, where) : partner;
    return newton_schulz_step_matrix(own.direction, metric);
  }
  const MetricRoot root =
      damping > 0.0 ? damped_metric_root(partner, own.factor, damping, where) : metric_root(partner, where);
  raises += root.raises;
  return exact_step_matrix(own.direction, root.root, where);
}

void require_finite(const HalfGrams& grams, std::string_view side, const std::string& where) {
  if (!std::isfinite(grams.factor.trace())) {
    throw NumericError(fmt::format("the {} factor is not finite", side), where, "lower the learning rate");
  }
  if (!std::isfinite(grams.direction.trace())) {
    throw NumericError(fmt::format("the gradient or momentum of the {} factor is not finite", side), where,
                       "lower the learning rate or look at the batch of this step");
  }
}

double relative_step(double step_norm_squared, const SmallMatrix& factor_gram) {
  const double norm_squared = factor_gram.trace();
  return norm_squared > 0.0 ? std::sqrt(step_norm_squared / norm_squared) : 0.0;
}

PairReport step_pair(const PairView& pair, const StepInfo& info, const OptimizerOptions& options) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const Half left{{false, pair.m, pair.r}, pair.left, pair.grad_left, state_slot(pair, kSlots, 0).data()};
  const Half right{{true, pair.n, pair.r}, pair.right, pair.grad_right, state_slot(pair, kSlots, 1).data()};
  const MomentumRule rule{options.momentum, (1.0 - options.momentum) * clip_factor(options.max_grad_norm, info),
                          options.nesterov};

  const HalfGrams left_grams = grams_of(left, rule);
  const HalfGrams right_grams = grams_of(right, rule);
  require_finite(left_grams, "left", where);
  require_finite(right_grams, "right", where);

  PairReport report;
  report.grad_norm_squared = left_grams.grad_norm_squared + right_grams.grad_norm_squared;
  StepMatrix left_step{SmallMatrix(pair.r), 0.0, {}};
  StepMatrix right_step = left_step;
  const double eta = spectral_step_size(options.multiplier, info.lr, pair.m, pair.n, pair.r);
  if (eta > 0.0) {
    const double c = options.damping ? eta / (2.0 * *options.damping * pair.scale) : 0.0;
    left_step = solve(options.orthogonalizer, left_grams, right_grams.factor, pair.right_started_zero ? c : 0.0, where,
                      report.cholesky_raises);
    right_step = solve(options.orthogonalizer, right_grams, left_grams.factor, pair.left_started_zero ? c : 0.0, where,
                       report.cholesky_raises);
  }

  // Split decay: each factor shrinks by q and its step grows by 1 / q, so that the product decays by q^2 = 1 - lambda
  // lr and its first-order change is that of the undecayed step. Decay goes by lr itself, whatever multiplies the step.
  const double q = std::sqrt(1.0 - options.weight_decay * info.lr);
  const double reach = eta / (2.0 * pair.scale);
  apply(left, rule, left_step.k, q, -reach / q);
  apply(right, rule, right_step.k, q, -reach / q);

  const double left_norm_squared = reach * reach * left_step.norm_squared;
  const double right_norm_squared = reach * reach * right_step.norm_squared;
  report.update_norm_squared = left_norm_squared + right_norm_squared;
  report.relative_step_left = relative_step(left_norm_squared, left_grams.factor);
  report.relative_step_right = relative_step(right_norm_squared, right_grams.factor);
  return report;
}

}  // namespace

std::span<const StateSlot> LoraMuon::state_slots(const ParameterShape& /*shape*/) const {
  return kSlots;
}

void LoraMuon::check(std::span<const PairView> pairs) const {
  refuse_dense(pairs, "lora_muon");
  check_pairs(pairs, *this);
  for (const PairView& pair : pairs) {
    const std::string where(pair.name);
    if (pair.r > std::min(pair.m, pair.n)) {
      throw UsageError(
          fmt::format("rank {} is larger than the smaller side of a {} x {} weight", pair.r, pair.m, pair.n), where,
          "lora_muon needs rank <= min(in, out): lower the rank, leave the site out, or use adamw");
    }
    if (pair.left_started_zero && pair.right_started_zero) {
      throw UsageError("both factors start at zero, so both gradients stay zero", where,
                       "start one of them away from zero");
    }
    if (!options_.damping && (pair.left_started_zero || pair.right_started_zero)) {
      throw UsageError(
          fmt::format(
              "the {} factor starts at zero and damping is off: the first steps of its partner would have no bound "
              "and throw its start away",
              pair.left_started_zero ? "left" : "right"),
          where, "set optimizer.damping (0.1 is a good value), or start from balanced non-zero factors");
    }
  }
}

void LoraMuon::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_pair(pairs[i], info, options_); });
  if (options_.balance_every > 0 && info.step % options_.balance_every == 0) {
    for_each_pair(pairs.size(), [&](std::size_t i) {
      balance_gauge(pairs[i], state_slot(pairs[i], kSlots, 0), state_slot(pairs[i], kSlots, 1));
    });
  }
}

double spectral_step_size(StepMultiplier multiplier, double lr, std::int64_t m, std::int64_t n, std::int64_t r) {
  const auto rows = static_cast<double>(m);
  const auto columns = static_cast<double>(n);
  switch (multiplier) {
    case StepMultiplier::kNone: return lr;
    case StepMultiplier::kSqrtMOverN: return lr * std::sqrt(rows / columns);
    case StepMultiplier::kRms: return lr * 0.2 * std::sqrt(rows * columns / static_cast<double>(r));
  }
  return lr;
}

}  // namespace lomu

#include "engine/optimizers/lora_rite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "engine/optimizers/fixed_order_sum.h"
#include "engine/optimizers/lora_muon.h"
#include "engine/optimizers/momentum.h"
#include "engine/optimizers/parallel_pairs.h"
#include "engine/optimizers/small_matrix.h"
#include "engine/optimizers/tall_products.h"

namespace lomu {
namespace {

constexpr std::array<StateSlot, 10> kSlots{{{"momentum_left", Extent::kLeft},
                                            {"momentum_right", Extent::kRight},
                                            {"second_moment_root_left", Extent::kRankByRank},
                                            {"second_moment_root_right", Extent::kRankByRank},
                                            {"transport_left", Extent::kRankByRank},
                                            {"transport_right", Extent::kRankByRank},
                                            {"escaped_left", Extent::kScalar},
                                            {"escaped_right", Extent::kScalar},
                                            {"damping_left", Extent::kScalar},
                                            {"damping_right", Extent::kScalar}}};

/// One side of a pair: a factor and the moments that move it.
struct Side {
  FactorShape shape;
  float* factor;
  const float* grad;
  float* momentum;
  std::span<float> second_moment_root, transport;
  float* escaped;
  float* damping;
  bool damped;  ///< the partner started at zero
};

Side side_of(const PairView& pair, bool right) {
  const auto state = [&](std::size_t slot) { return state_slot(pair, kSlots, slot + (right ? 1 : 0)); };
  Side side{{right, right ? pair.n : pair.m, pair.r},
            right ? pair.right : pair.left,
            right ? pair.grad_right : pair.grad_left,
            state(0).data(),
            state(2),
            state(4),
            state(6).data(),
            state(8).data(),
            right ? pair.left_started_zero : pair.right_started_zero};
  return side;
}

SmallMatrix transposed(const SmallMatrix& a) {
  SmallMatrix out(a.size());
  for (std::int64_t i = 0; i < a.size(); ++i) {
    for (std::int64_t j = 0; j < a.size(); ++j) out(i, j) = a(j, i);
  }
  return out;
}

SmallMatrix read(std::span<const float> values, std::int64_t size) {
  SmallMatrix out(size);
  std::copy(values.begin(), values.end(), out.values().begin());
  return out;
}

void write(const SmallMatrix& a, std::span<float> values) {
  std::transform(a.values().begin(), a.values().end(), values.begin(), [](double x) { return static_cast<float>(x); });
}

/// The Grams of both factors at one moment, seen from one side.
struct Grams {
  const SmallMatrix& own;
  const SmallMatrix& partner;
};

/// R^-1 of the partner, or of the partner damped by c.
SmallMatrix inverse_root(const Grams& grams, double c, const std::string& where, int& raises) {
  MetricRoot root =
      c > 0.0 ? damped_metric_root(grams.partner, grams.own, c, where) : metric_root(grams.partner, where);
  raises += root.raises;
  return std::move(root.root);
}

/// B_to^T B_from for the partner, and the rows that damping puts under it, at two moments: `partner` and `own` are the
/// cross Grams of the factors between the moments.
SmallMatrix cross_of_bases(const SmallMatrix& partner, const SmallMatrix& own, const Grams& to, const Grams& from,
                           double c_to, double c_from, const std::string& where) {
  if (c_to == 0.0 || c_from == 0.0) return partner;
  const auto inverse = [&](const SmallMatrix& gram) {
    const SmallMatrix root = metric_root(gram, where).root;
    return product(root, transposed(root));
  };
  const SmallMatrix under = product(product(inverse(to.own), own), inverse(from.own));
  SmallMatrix sum = partner;
  for (std::size_t i = 0; i < sum.values().size(); ++i) sum.values()[i] += c_to * c_from * under.values()[i];
  return sum;
}

/// What is carried from step to step, in double.
struct Moments {
  SmallMatrix root;       ///< N, V = N N^T
  SmallMatrix transport;  ///< T, from the coordinates of the momentum
  double escaped;

  [[nodiscard]] SmallMatrix second() const { return product(root, transposed(root)); }

  /// Into other coordinates.
  void carry(const SmallMatrix& t, const std::string& where) {
    const std::vector<double> before = eigensystem(second(), where).values;
    root = product(t, root);
    transport = product(t, transport);
    const std::vector<double> after = eigensystem(second(), where).values;
    double lost = 0.0;
    for (std::size_t i = 0; i < before.size(); ++i) lost = std::max(lost, before[i] - after[i]);
    escaped += lost;
  }
};

/// beta with the bias correction worked in: a running mean that needs none afterwards.
double corrected_decay(double beta, std::int64_t step) {
  const auto t = static_cast<double>(step);
  return beta * (1.0 - std::pow(beta, t - 1.0)) / (1.0 - std::pow(beta, t));
}

/// The r x r part of a step: M' = M a + g b, step = M' f.
struct Plan {
  SmallMatrix a, b, f;
  Moments moments;   ///< with this step's gradient in them
  SmallMatrix root;  ///< R^-1
  double c;
};

struct StepNumbers {
  double lr, scale, clip, eps, beta1, beta2;
};

Plan plan_step(const Side& side, const Grams& grams, const SmallMatrix& grad_gram, double c, const StepNumbers& numbers,
               const std::string& where, int& raises) {
  const std::int64_t r = side.shape.rank;
  Moments moments{read(side.second_moment_root, r), read(side.transport, r), *side.escaped};
  SmallMatrix root = inverse_root(grams, c, where, raises);
  const double last_c = *side.damping;
  if (last_c > 0.0 && last_c != c) {  // the second leg: same factors, another damping
    const SmallMatrix last = inverse_root(grams, last_c, where, raises);
    const SmallMatrix cross = cross_of_bases(grams.partner, grams.own, grams, grams, c, last_c, where);
    moments.carry(product(product(transposed(root), cross), last), where);
  }

  const double unmagnify = numbers.clip / numbers.scale;
  const double rows = static_cast<double>(side.shape.length);
  const SmallMatrix fresh = congruence(scaled(unmagnify, transposed(root)), grad_gram);
  SmallMatrix second = moments.second();
  for (std::size_t i = 0; i < second.values().size(); ++i) {
    second.values()[i] = numbers.beta2 * second.values()[i] + (1.0 - numbers.beta2) / rows * fresh.values()[i];
  }
  moments.escaped *= numbers.beta2;
  const Eigensystem eigen = eigensystem(symmetrised(second), where);
  const double floor = kZeroSingularValue * kZeroSingularValue * eigen.values.back();
  moments.root = function_of(eigen, [](double lambda) { return std::sqrt(std::max(lambda, 0.0)); });
  const SmallMatrix precondition = function_of(eigen, [&](double lambda) {
    return lambda > floor ? 1.0 / (std::sqrt(lambda + moments.escaped) + numbers.eps) : 0.0;
  });
  return {scaled(numbers.beta1, transposed(moments.transport)),
          scaled((1.0 - numbers.beta1) * unmagnify, product(root, precondition)),
          transposed(root),
          std::move(moments),
          std::move(root),
          c};
}

/// momentum <- M', factor <- keep factor - reach M' f. Returns the squared norm of the step without decay.
double apply(const Side& side, const Plan& plan, double keep, double reach) {
  const FactorShape& shape = side.shape;
  const Panel a = padded_matrix(shape, plan.a);
  const Panel b = padded_matrix(shape, plan.b);
  const Panel f = padded_matrix(shape, plan.f);
  std::vector<double> squares(static_cast<std::size_t>(shape.chunks()), 0.0);
  for_each_chunk(shape, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
    Panel input(shape.panel_size());
    Panel moved(shape.panel_size());
    Panel product(shape.panel_size());
    const auto load = [&](const float* from, std::int64_t at, std::int64_t stop) {
      input.clear();
      for_each_run(shape, at, stop,
                   [&](const Run& run) { std::copy_n(from + run.factor, run.count, input.data() + run.panel); });
    };
    moved.clear();
    product.clear();
    for (std::int64_t at = begin; at < end; at += shape.panel_length()) {
      const std::int64_t stop = std::min(end, at + shape.panel_length());
      load(side.grad, at, stop);
      multiply_panel(shape, input.data(), stop - at, b.data(), moved.data());
      load(side.momentum, at, stop);
      multiply_panel(shape, input.data(), stop - at, a.data(), product.data());
      for (std::int64_t i = 0; i < shape.panel_size(); ++i) moved.data()[i] += product.data()[i];
      multiply_panel(shape, moved.data(), stop - at, f.data(), product.data());
      for_each_run(shape, at, stop, [&](const Run& run) {
        const double* m = moved.data() + run.panel;
        const double* change = product.data() + run.panel;
        for (std::int64_t i = 0; i < run.count; ++i) {
          float& x = side.factor[run.factor + i];
          side.momentum[run.factor + i] = static_cast<float>(m[i]);
          x = static_cast<float>(keep * x - reach * change[i]);
        }
        squares[static_cast<std::size_t>(chunk)] +=
            sum_of_squares(std::span<const double>(change, static_cast<std::size_t>(run.count)));
      });
    }
  });
  double sum = 0.0;
  for (const double s : squares) sum += s;
  return reach * reach * sum;
}

/// The first leg: to the coordinates of the new factors, at the same damping; then everything into float32.
void finish(const Side& side, Plan plan, const Grams& to, const Grams& from, const SmallMatrix& partner_cross,
            const SmallMatrix& own_cross, const std::string& where, int& raises) {
  const SmallMatrix root = inverse_root(to, plan.c, where, raises);
  const SmallMatrix cross = cross_of_bases(partner_cross, own_cross, to, from, plan.c, plan.c, where);
  plan.moments.transport = identity(side.shape.rank);  // the momentum is in the coordinates of this step by now
  plan.moments.carry(product(product(transposed(root), cross), plan.root), where);
  write(plan.moments.root, side.second_moment_root);
  write(plan.moments.transport, side.transport);
  *side.escaped = static_cast<float>(plan.moments.escaped);
  *side.damping = static_cast<float>(plan.c);
}

GramResult gram_of_gradient(const Side& side) {
  return gram_from_runs(side.shape, [&side](const Run& run, double* panel) {
    const float* g = side.grad + run.factor;
    std::copy_n(g, run.count, panel + run.panel);
    return sum_of_squares({g, static_cast<std::size_t>(run.count)});
  });
}

PairReport step_pair(const PairView& pair, const StepInfo& info, const OptimizerOptions& options) {
  const std::string where = fmt::format("{}, step {}", pair.name, info.step);
  const Side left = side_of(pair, false);
  const Side right = side_of(pair, true);
  const SmallMatrix left_gram = gram_of(left.shape, left.factor);
  const SmallMatrix right_gram = gram_of(right.shape, right.factor);
  const GramResult left_grad = gram_of_gradient(left);
  const GramResult right_grad = gram_of_gradient(right);
  require_finite_factor(left_gram, "the left factor", where);
  require_finite_factor(right_gram, "the right factor", where);
  require_finite_direction(left_grad.gram, "the left factor", where);
  require_finite_direction(right_grad.gram, "the right factor", where);

  PairReport report;
  report.grad_norm_squared = left_grad.side_sum + right_grad.side_sum;
  if (info.lr == 0.0) return report;
  const StepNumbers numbers{info.lr,
                            pair.scale,
                            clip_factor(options.max_grad_norm, info),
                            options.eps,
                            corrected_decay(options.beta1, info.step),
                            corrected_decay(options.beta2, info.step)};
  // Rounded as it will be stored, so that the next step rebuilds the same coordinates from it.
  const auto damping = [&](const Side& side) -> double {
    if (!side.damped) return 0.0;
    const double size = std::sqrt(static_cast<double>(side.shape.length));
    return static_cast<float>(info.lr * size / (*options.damping * pair.scale));
  };
  int& raises = report.cholesky_raises;
  Plan left_plan = plan_step(left, {left_gram, right_gram}, left_grad.gram, damping(left), numbers, where, raises);
  Plan right_plan = plan_step(right, {right_gram, left_gram}, right_grad.gram, damping(right), numbers, where, raises);

  const std::vector<float> old_left(pair.left, pair.left + pair.left_size());
  const std::vector<float> old_right(pair.right, pair.right + pair.right_size());
  const double keep = 1.0 - info.lr * options.weight_decay;
  const double reach = info.lr / pair.scale;
  const double left_step = apply(left, left_plan, keep, reach);
  const double right_step = apply(right, right_plan, keep, reach);

  const SmallMatrix new_left_gram = gram_of(left.shape, left.factor);
  const SmallMatrix new_right_gram = gram_of(right.shape, right.factor);
  const SmallMatrix left_cross = cross_gram(left.shape, left.factor, old_left.data());
  const SmallMatrix right_cross = cross_gram(right.shape, right.factor, old_right.data());
  finish(left, std::move(left_plan), {new_left_gram, new_right_gram}, {left_gram, right_gram}, right_cross, left_cross,
         where, raises);
  finish(right, std::move(right_plan), {new_right_gram, new_left_gram}, {right_gram, left_gram}, left_cross,
         right_cross, where, raises);

  report.update_norm_squared = left_step + right_step;
  report.relative_step_left = relative_step(left_step, left_gram.trace());
  report.relative_step_right = relative_step(right_step, right_gram.trace());
  return report;
}

}  // namespace

std::span<const StateSlot> LoraRite::state_slots(const ParameterShape& /*shape*/) const {
  return kSlots;
}

void LoraRite::check(std::span<const PairView> pairs) const {
  refuse_dense(pairs, "lora_rite");
  check_pairs(pairs, *this);
  check_metric_exists(pairs, options_, "lora_rite");
}

void LoraRite::step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) {
  check(pairs);
  check_learning_rate(info, options_.weight_decay);
  report.pairs.assign(pairs.size(), {});
  for_each_pair(pairs.size(), [&](std::size_t i) { report.pairs[i] = step_pair(pairs[i], info, options_); });
}

}  // namespace lomu

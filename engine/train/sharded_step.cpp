#include "engine/train/sharded_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "comm/gradient_reducer.h"
#include "kernels/error.h"

namespace lomu {

std::vector<PairShape> pair_shapes(const AdapterSet& adapters) {
  std::vector<PairShape> shapes;
  for (const PairInfo& p : adapters.pairs()) {
    // A weight trained in full has no right factor.
    shapes.push_back({p.name, static_cast<std::size_t>(p.out), p.full ? 0 : static_cast<std::size_t>(p.in),
                      static_cast<std::size_t>(p.rank), static_cast<std::size_t>(p.offset_a)});
  }
  return shapes;
}

ParameterShape parameter_shape(const PairInfo& pair) {
  return {pair.name, pair.out, pair.in, pair.rank, pair.full};
}

ShardedStep::ShardedStep(const OptimizerOptions& options, AdaptedModel& model, ShardPlan shards, Communicator& comm)
    : model_(model),
      comm_(comm),
      options_(options),
      optimizer_(make_optimizer(options)),
      shards_(std::move(shards)),
      length_(model.adapters()->factors().size()) {
  std::vector<ParameterShape> all;
  for (const PairInfo& p : model.adapters()->pairs()) all.push_back(parameter_shape(p));
  optimizer_->check_all(all);
}

std::size_t ShardedStep::owned_state_size() const {
  std::size_t size = 0;
  for (std::size_t i = 0; i < owned().size(); ++i) {
    size += static_cast<std::size_t>(optimizer_->state_size(parameter_shape(owned_pair(i))));
  }
  return size;
}

std::vector<PairView> ShardedStep::views(float* factors, const float* gradients, float* state,
                                         bool left_started_zero) const {
  std::vector<PairView> views;
  for (std::size_t i = 0; i < owned().size(); ++i) {
    const PairInfo& p = owned_pair(i);
    PairView& view = views.emplace_back();
    view.name = p.name;
    view.m = p.out;
    view.n = p.in;
    view.r = p.rank;
    view.scale = p.scale;
    view.left = factors + p.offset_b;
    view.grad_left = gradients + p.offset_b;
    if (!p.full) {
      view.right = factors + p.offset_a;
      view.grad_right = gradients + p.offset_a;
    }
    view.state = {state, static_cast<std::size_t>(optimizer_->state_size(parameter_shape(p)))};
    state += view.state.size();
    view.left_started_zero = left_started_zero && !p.full;
  }
  return views;
}

void ShardedStep::begin(std::size_t micro_batches) {
  const bool changed = !plan_ || plan_->micro_batches() != micro_batches;
  // What was made from the last plan refers to it until prepare() has replaced it.
  std::unique_ptr<ReductionPlan> last;
  if (changed) last = std::exchange(plan_, std::make_unique<ReductionPlan>(micro_batches, comm_.size()));
  prepare(changed);
}

StepTotals ShardedStep::finish(std::int64_t number, double lr, bool telemetry) {
  reduce();

  // The norms are checked on all ranks before any rank steps: a gradient that is not finite must leave every factor as
  // it was. Pairs are added in pair order whoever owns them.
  const auto all_pairs = model_.adapters()->pairs();
  std::vector<double> own_squares;
  comm_.together([&] { own_squares = grad_norms_squared(); }, "norms of the gradients");
  const std::vector<double> squares = by_pair(own_squares, 1);
  double total = 0;
  for (std::size_t i = 0; i < squares.size(); ++i) {
    if (!std::isfinite(squares[i])) {
      throw AgreedError(0, "a gradient is NaN or infinite", fmt::format("step {}, {}", number, all_pairs[i].name),
                        "lower optimizer.lr, or look at the data of this step; the adapter was not changed by it",
                        Exit::kDiverged);
    }
    total += squares[i];
  }

  std::vector<PairFigures> figures;
  std::vector<PairReport> reports;
  comm_.together(
      [&] {
        if (telemetry) figures = describe_owned();
        reports = step({number, lr, std::sqrt(total), telemetry});
      },
      "optimizer step");
  gather();

  constexpr std::size_t kTotals = 3;
  std::vector<double> figures_of_owned;
  for (const PairReport& p : reports) {
    figures_of_owned.insert(figures_of_owned.end(),
                            {p.update_norm_squared, std::max(p.relative_step_left, p.relative_step_right),
                             static_cast<double>(p.cholesky_raises)});
  }
  const std::vector<double> all = by_pair(figures_of_owned, kTotals);
  StepTotals totals;
  totals.grad_norm = std::sqrt(total);
  double update = 0;
  for (std::size_t i = 0; i < all.size(); i += kTotals) {
    update += all[i];
    totals.max_relative_step = std::max(totals.max_relative_step, all[i + 1]);
    totals.cholesky_raises += static_cast<std::int64_t>(all[i + 2]);
  }
  totals.update_norm = std::sqrt(update);
  if (telemetry) totals.pairs = gather_figures(figures, reports);
  return totals;
}

std::vector<PairFigures> ShardedStep::gather_figures(std::span<PairFigures> figures,
                                                     std::span<const PairReport> reports) {
  std::vector<double> flat;
  for (std::size_t i = 0; i < figures.size(); ++i) {
    PairFigures& own = figures[i];
    const auto of_step = reports[i].figures.values();
    for (std::size_t k = 0; k < kFigures; ++k) {
      if (!std::isnan(of_step[k])) own.values()[k] = of_step[k];
    }
    own[Figure::kRelativeStepLeft] = reports[i].relative_step_left;
    if (!owned_pair(i).full) {
      own[Figure::kRelativeStepRight] = reports[i].relative_step_right;
      own[Figure::kCholeskyRaises] = reports[i].cholesky_raises;
    }
    flat.insert(flat.end(), own.values().begin(), own.values().end());
  }
  const std::vector<double> all = by_pair(flat, kFigures);
  std::vector<PairFigures> gathered(all.size() / kFigures);
  for (std::size_t i = 0; i < gathered.size(); ++i) {
    std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(i * kFigures), kFigures, gathered[i].values().begin());
  }
  return gathered;
}

std::vector<double> ShardedStep::by_pair(std::span<const double> owned_values, std::size_t width) {
  std::vector<double> all(model_.adapters()->pairs().size() * width);
  for (std::size_t i = 0; i < owned().size(); ++i) {
    std::copy_n(owned_values.begin() + static_cast<std::ptrdiff_t>(i * width), width,
                all.begin() + static_cast<std::ptrdiff_t>(owned()[i] * width));
  }
  comm_.all_reduce_sum_ordered(all, "figures of the step");  // each entry has one owner; the others add exact zeros
  return all;
}

double ShardedStep::tree_sum_of(std::span<const double> mine) {
  return tree_sum(gather_micro_batch_values(comm_, *plan_, mine));
}

std::vector<std::vector<float>> ShardedStep::gather_state() {
  const auto pairs = model_.adapters()->pairs();
  std::vector<std::vector<float>> all(pairs.size());
  std::size_t next_owned = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    all[i].resize(static_cast<std::size_t>(optimizer_->state_size(parameter_shape(pairs[i]))));
    if (shards_.owner[i] == comm_.rank()) fetch_state(next_owned++, all[i]);
    comm_.broadcast(std::as_writable_bytes(std::span(all[i])), shards_.owner[i], "optimizer state");
  }
  return all;
}

void ShardedStep::restore_state(const std::vector<std::vector<float>>& all) {
  for (std::size_t i = 0; i < owned().size(); ++i) {
    const PairInfo& p = owned_pair(i);
    const std::vector<float>& saved = all[owned()[i]];
    const auto expected = static_cast<std::size_t>(optimizer_->state_size(parameter_shape(p)));
    if (saved.size() != expected) {
      throw FormatError(fmt::format("optimizer state of {} floats where {} belong", saved.size(), expected), p.name);
    }
    put_state(i, saved);
  }
}

}  // namespace lomu

#include "engine/train/sharded_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/error.h"

namespace lomu {
namespace {

std::vector<PairShape> shapes_of(std::span<const PairInfo> pairs) {
  std::vector<PairShape> shapes;
  for (const PairInfo& p : pairs) {
    shapes.push_back({p.name, static_cast<std::size_t>(p.out), static_cast<std::size_t>(p.in),
                      static_cast<std::size_t>(p.rank), static_cast<std::size_t>(p.offset_a)});
  }
  return shapes;
}

std::span<float> floats(const Buffer& buffer) {
  return {buffer.as<float>(), buffer.size() / sizeof(float)};
}

}  // namespace

ShardedStep::ShardedStep(const OptimizerOptions& options, AdapterSet& adapters, bool started_zero,
                         std::size_t micro_batches, Communicator& comm, Memory& memory)
    : adapters_(adapters),
      comm_(comm),
      memory_(memory),
      options_(options),
      optimizer_(make_optimizer(options)),
      length_(adapters.factors().size()),
      shards_(shard_by_pair(shapes_of(adapters.pairs()), comm.size())),
      started_zero_(started_zero) {
  std::size_t state = 0;
  for (const std::size_t i : shards_.pairs[static_cast<std::size_t>(comm_.rank())]) {
    const PairInfo& p = adapters_.pairs()[i];
    state += static_cast<std::size_t>(optimizer_->state_size(p.out, p.in, p.rank));
  }
  state_ = memory_.allocate(Scope::kOptimizer, state * sizeof(float), "optimizer state");
  if (comm_.size() > 1) summed_ = memory_.allocate(Scope::kComm, length_ * sizeof(float), "reduced gradient");
  begin(micro_batches);
  make_views();
  optimizer_->check(views_);
}

void ShardedStep::make_views() {
  float* state = state_.as<float>();
  for (const std::size_t i : shards_.pairs[static_cast<std::size_t>(comm_.rank())]) {
    const PairInfo& p = adapters_.pairs()[i];
    PairView view;
    view.name = p.name;
    view.m = p.out;
    view.n = p.in;
    view.r = p.rank;
    view.scale = p.scale;
    view.left = adapters_.b(p).data();
    view.right = adapters_.a(p).data();
    // Backward's own buffer is a stand-in that makes the views complete for Optimizer::check; finish() points them at
    // the sum.
    view.grad_left = adapters_.gradients().as<float>() + p.offset_b;
    view.grad_right = adapters_.gradients().as<float>() + p.offset_a;
    const auto size = static_cast<std::size_t>(optimizer_->state_size(p.out, p.in, p.rank));
    view.state = {state, size};
    state += size;
    view.left_started_zero = started_zero_;
    views_.push_back(view);
  }
}

void ShardedStep::begin(std::size_t micro_batches) {
  if (plan_ && plan_->micro_batches() == micro_batches) {
    accumulator_->reset();
    return;
  }
  accumulator_.reset();
  reducer_.reset();
  plan_ = std::make_unique<ReductionPlan>(micro_batches, comm_.size());
  const std::size_t buffers = plan_->buffers_needed(comm_.rank());
  pool_storage_ = Buffer();
  pool_storage_ = memory_.allocate(Scope::kComm, BufferPool::storage_floats(buffers, length_) * sizeof(float),
                                   "partial gradient sums");
  pool_ = std::make_unique<BufferPool>(floats(pool_storage_), length_);
  accumulator_ = std::make_unique<TreeAccumulator>(*plan_, comm_.rank(), *pool_);
  workspace_ = Buffer();
  workspace_ = memory_.allocate(
      Scope::kComm, GradientReducer::workspace_floats(*plan_, shards_.segments, comm_.rank()) * sizeof(float),
      "gradients from other ranks");
  reducer_ = std::make_unique<GradientReducer>(comm_, *plan_, shards_.segments, length_, floats(workspace_));
}

void ShardedStep::add(std::size_t index) {
  const std::span<float> into = accumulator_->next_buffer();
  std::memcpy(into.data(), adapters_.gradients().data, length_ * sizeof(float));
  accumulator_->push(index);
}

StepTotals ShardedStep::finish(std::int64_t step, double lr) {
  const auto partials = accumulator_->partials();
  // With one rank the root of the tree is the sum, and nothing moves.
  const std::span<float> sum = comm_.size() > 1 ? floats(summed_) : partials.front().sum;
  reducer_->reduce_to_owners(partials, sum);
  const auto& mine = shards_.pairs[static_cast<std::size_t>(comm_.rank())];
  for (std::size_t i = 0; i < mine.size(); ++i) {
    const PairInfo& p = adapters_.pairs()[mine[i]];
    views_[i].grad_left = sum.data() + p.offset_b;
    views_[i].grad_right = sum.data() + p.offset_a;
  }

  // The norms are checked on all ranks before any rank steps: a gradient that is not finite must leave every factor as
  // it was. Pairs are added in pair order whoever owns them.
  const auto all_pairs = adapters_.pairs();
  const std::vector<double> squares = by_pair(grad_norm_squared(views_), 1);
  double total = 0;
  for (std::size_t i = 0; i < squares.size(); ++i) {
    if (!std::isfinite(squares[i])) {
      throw AgreedError(0, "a gradient is NaN or infinite", fmt::format("step {}, {}", step, all_pairs[i].name),
                        "lower optimizer.lr, or look at the data of this step; the adapter was not changed by it",
                        Exit::kFailed);
    }
    total += squares[i];
  }

  StepReport report;
  comm_.together([&] { optimizer_->step(views_, {step, lr, std::sqrt(total)}, report); }, "optimizer step");
  reducer_->gather_factors(adapters_.factors());

  constexpr std::size_t kFigures = 3;
  std::vector<double> owned;
  for (const PairReport& p : report.pairs) {
    owned.insert(owned.end(), {p.update_norm_squared, std::max(p.relative_step_left, p.relative_step_right),
                               static_cast<double>(p.cholesky_raises)});
  }
  const std::vector<double> all = by_pair(owned, kFigures);
  StepTotals figures;
  figures.grad_norm = std::sqrt(total);
  double update = 0;
  for (std::size_t i = 0; i < all.size(); i += kFigures) {
    update += all[i];
    figures.max_relative_step = std::max(figures.max_relative_step, all[i + 1]);
    figures.cholesky_raises += static_cast<std::int64_t>(all[i + 2]);
  }
  figures.update_norm = std::sqrt(update);
  accumulator_->reset();
  return figures;
}

std::vector<double> ShardedStep::by_pair(std::span<const double> owned, std::size_t width) {
  const auto& mine = shards_.pairs[static_cast<std::size_t>(comm_.rank())];
  std::vector<double> all(adapters_.pairs().size() * width);
  for (std::size_t i = 0; i < mine.size(); ++i) {
    std::copy_n(owned.begin() + static_cast<std::ptrdiff_t>(i * width), width,
                all.begin() + static_cast<std::ptrdiff_t>(mine[i] * width));
  }
  comm_.all_reduce_sum_ordered(all, "figures of the step");  // each entry has one owner; the others add exact zeros
  return all;
}

double ShardedStep::tree_sum_of(std::span<const double> mine) {
  return tree_sum(gather_micro_batch_values(comm_, *plan_, mine));
}

std::vector<std::vector<float>> ShardedStep::gather_state() {
  const auto pairs = adapters_.pairs();
  std::vector<std::vector<float>> all(pairs.size());
  std::size_t next_view = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    all[i].resize(static_cast<std::size_t>(optimizer_->state_size(pairs[i].out, pairs[i].in, pairs[i].rank)));
    if (shards_.owner[i] == comm_.rank()) {
      std::copy(views_[next_view].state.begin(), views_[next_view].state.end(), all[i].begin());
      ++next_view;
    }
    comm_.broadcast(std::as_writable_bytes(std::span(all[i])), shards_.owner[i], "optimizer state");
  }
  return all;
}

void ShardedStep::restore_state(const std::vector<std::vector<float>>& all) {
  const auto& mine = shards_.pairs[static_cast<std::size_t>(comm_.rank())];
  for (std::size_t i = 0; i < mine.size(); ++i) {
    const std::vector<float>& saved = all[mine[i]];
    if (saved.size() != views_[i].state.size()) {
      throw FormatError(
          fmt::format("optimizer state of {} floats where {} belong", saved.size(), views_[i].state.size()),
          std::string(views_[i].name));
    }
    std::copy(saved.begin(), saved.end(), views_[i].state.begin());
  }
}

}  // namespace lomu

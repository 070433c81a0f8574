#include "engine/train/host_step.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/gradient_reducer.h"

namespace lomu {
namespace {

std::span<float> floats(const Buffer& buffer) {
  return {buffer.as<float>(), buffer.size() / sizeof(float)};
}

class HostStep final : public ShardedStep {
 public:
  HostStep(const OptimizerOptions& options, AdaptedModel& model, bool left_started_zero, std::size_t micro_batches,
           Communicator& comm, Memory& memory)
      : ShardedStep(options, model, shard_by_pair(pair_shapes(*model.adapters()), comm.size()), comm), memory_(memory) {
    state_ = memory_.allocate(Scope::kOptimizer, owned_state_size() * sizeof(float), "optimizer state");
    if (comm_.size() > 1) summed_ = memory_.allocate(Scope::kComm, length_ * sizeof(float), "reduced gradient");
    begin(micro_batches);
    AdapterSet& adapters = *model_.adapters();
    // Backward's own buffer is a stand-in that makes the views complete for Optimizer::check; reduce() points them at
    // the sum.
    views_ = views(adapters.factors().data(), adapters.gradients().as<float>(), state_.as<float>(), left_started_zero);
    optimizer_->check(views_);
  }

  void add(std::size_t index) override {
    const std::span<float> into = accumulator_->next_buffer();
    std::memcpy(into.data(), model_.adapters()->gradients().data, length_ * sizeof(float));
    accumulator_->push(index);
  }

 private:
  void prepare(bool plan_changed) override {
    if (!plan_changed) {
      accumulator_->reset();
      return;
    }
    accumulator_.reset();
    reducer_.reset();
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

  void reduce() override {
    const auto partials = accumulator_->partials();
    // With one rank the root of the tree is the sum, and nothing moves.
    const std::span<float> sum = comm_.size() > 1 ? floats(summed_) : partials.front().sum;
    reducer_->reduce_to_owners(partials, sum);
    for (std::size_t i = 0; i < views_.size(); ++i) {
      views_[i].grad_left = sum.data() + owned_pair(i).offset_b;
      if (!owned_pair(i).full) views_[i].grad_right = sum.data() + owned_pair(i).offset_a;
    }
  }

  std::vector<double> grad_norms_squared() override { return grad_norm_squared(views_); }

  std::vector<PairReport> step(const StepInfo& info) override {
    StepReport report;
    optimizer_->step(views_, info, report);
    return std::move(report.pairs);
  }

  std::vector<PairFigures> describe_owned() override { return describe_factors(views_); }

  void gather() override {
    reducer_->gather_factors(model_.adapters()->factors());
    model_.refresh();
  }

  void fetch_state(std::size_t i, std::span<float> to) override {
    std::copy(views_[i].state.begin(), views_[i].state.end(), to.begin());
  }
  void put_state(std::size_t i, std::span<const float> from) override {
    std::copy(from.begin(), from.end(), views_[i].state.begin());
  }

  Memory& memory_;
  Buffer pool_storage_;
  std::unique_ptr<BufferPool> pool_;
  std::unique_ptr<TreeAccumulator> accumulator_;
  Buffer workspace_;
  std::unique_ptr<GradientReducer> reducer_;
  Buffer summed_;  ///< the reduced gradient of the pairs this rank owns, in flat layout; unused with one rank
  Buffer state_;
  std::vector<PairView> views_;  ///< of the owned pairs
};

}  // namespace

std::unique_ptr<ShardedStep> make_host_step(const OptimizerOptions& options, AdaptedModel& model,
                                            bool left_started_zero, std::size_t micro_batches, Communicator& comm,
                                            Memory& memory) {
  return std::make_unique<HostStep>(options, model, left_started_zero, micro_batches, comm, memory);
}

}  // namespace lomu

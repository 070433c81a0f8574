#include "engine/train/device_step.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/gradient_buckets.h"
#include "engine/optimizers/lora_muon.h"
#include "kernels/error.h"

namespace lomu {
namespace {

void refuse_what_devices_lack(const OptimizerOptions& options) {
  const auto refuse = [](const char* what, const char* where) {
    throw UsageError(fmt::format("{} is not computed on a GPU yet", what), where, "set runtime.device: cpu");
  };
  if (options.spectral_bound) refuse("a bound on the singular values of a product", "adapter.spectral_bound");
  if (!options.groups.empty()) refuse("a job with parameter groups", "optimizer.groups");
  if (options.name != OptimizerKind::kLoraMuon && options.name != OptimizerKind::kAdamW) {
    refuse("an optimizer other than lora_muon and adamw", "optimizer.name");
  }
  if (options.name == OptimizerKind::kLoraMuon && options.filter != SpectralFilter::kSign) {
    refuse("a spectral filter other than sign", "optimizer.filter");
  }
}

DeviceOptimizerOptions device_options(const OptimizerOptions& options) {
  refuse_what_devices_lack(options);
  DeviceOptimizerOptions device;
  device.name = options.name == OptimizerKind::kAdamW ? DeviceOptimizerOptions::Name::kAdamW
                                                      : DeviceOptimizerOptions::Name::kLoraMuon;
  device.weight_decay = options.weight_decay;
  device.max_grad_norm = options.max_grad_norm;
  device.momentum = options.momentum;
  device.nesterov = options.nesterov;
  device.damping = options.damping;
  device.newton_schulz = options.orthogonalizer == Orthogonalizer::kNewtonSchulz;
  device.beta1 = options.beta1;
  device.beta2 = options.beta2;
  device.eps = options.eps;
  return device;
}

std::vector<DevicePair> device_pairs(std::span<const PairView> views, const OptimizerOptions& options) {
  std::vector<DevicePair> pairs;
  for (const PairView& view : views) {
    pairs.push_back({view.m,
                     view.n,
                     view.r,
                     view.scale,
                     spectral_step_size(options, 1.0, view.m, view.n, view.r),
                     view.left_started_zero,
                     view.right_started_zero,
                     view.left,
                     view.right,
                     view.grad_left,
                     view.grad_right,
                     view.state.data(),
                     {}});
  }
  return pairs;
}

double relative(double step_norm_squared, double factor_norm_squared) {
  return factor_norm_squared > 0.0 ? std::sqrt(step_norm_squared / factor_norm_squared) : 0.0;
}

class DeviceStep final : public ShardedStep {
 public:
  DeviceStep(const OptimizerOptions& options, AdaptedModel& model, bool left_started_zero, std::size_t micro_batches,
             Communicator& comm, const DeviceRoom& room, AdditionOrder order, BucketPlan buckets)
      : ShardedStep(options, model, buckets.shards, comm),
        room_(room),
        order_(order),
        buckets_(std::move(buckets)),
        schedule_(buckets_),
        state_(allocate(Scope::kOptimizer, owned_state_size(), "optimizer state")),
        summed_(allocate(Scope::kComm, length_, "reduced gradient")) {
    if (comm.size() > 1 && room.transport == nullptr) {
      throw Error("ranks on devices have nothing to move gradients with", {}, "build with NCCL");
    }
    begin(micro_batches);
    views_ = views(model_.factors(), summed_.as<float>(), state_.as<float>(), left_started_zero);
    optimizer_->check(views_);
    std::vector<DevicePair> pairs = device_pairs(views_, options_);
    if (room_.transport == nullptr) packs_ = take_places(pairs);
    stepper_ = room_.steps.make_optimizer(pairs, device_options(options_), room_.memory);
  }

  [[nodiscard]] bool listens(std::size_t index) const override {
    return room_.transport != nullptr && index + 1 == block().end;
  }
  void passed(std::size_t index, std::size_t pairs) override {
    if (!listens(index)) return;
    if (!late_) take_last(index);
    for (; passed_ < pairs; ++passed_) {
      const Block ready = schedule_.passed(0, passed_);
      for (std::size_t b = ready.begin; b < ready.end; ++b) reduce_bucket(b);
    }
  }

  void add(std::size_t index) override {
    if (listens(index)) {
      passed(index, model_.adapters()->pairs().size());
      return;
    }
    room_.steps.copy(accumulator_->next_buffer().data(), gradients(), length_);
    accumulator_->push(position(index), [this](std::span<float> into, std::span<const float> from) {
      room_.steps.add(into.data(), from.data(), into.size());
    });
  }

 private:
  /// An addition of whole buffers that is carried out bucket by bucket.
  struct LateAddition {
    float* into;
    const float* from;
  };

  Buffer allocate(Scope scope, std::size_t count, std::string_view label) {
    return room_.memory.allocate(scope, count * sizeof(float), label);
  }
  [[nodiscard]] const float* gradients() const { return model_.gradients().as<float>(); }
  /// Has the step write factors as products read them too, if it can. Where other ranks step some of them, all are
  /// packed by a launch of their own when they have been gathered.
  bool take_places(std::vector<DevicePair>& pairs) const {
    const std::vector<PackedPair> places = model_.packed_places();
    if (places.empty()) return false;
    for (std::size_t i = 0; i < pairs.size(); ++i) pairs[i].packed = places[owned()[i]];
    return true;
  }
  /// What the accumulator calls a micro-batch: in tree order by its number in the step, else in the block.
  [[nodiscard]] std::size_t position(std::size_t index) const {
    return order_ == AdditionOrder::kTree ? index : index - block().begin;
  }

  void prepare(bool plan_changed) override {
    if (plan_changed) {
      make_accumulator();
      reducer_.reset();
      if (room_.transport) reducer_ = std::make_unique<BucketReducer>(*room_.transport, buckets_, *plan_, order_);
    } else if (accumulator_) {
      accumulator_->reset();
    }
    schedule_.begin(block().size() > 0 ? 1 : 0);
    late_ = false;
    passed_ = 0;
  }

  /// In the library's order a rank needs the sum of its own micro-batches alone, whatever the step's tree says.
  void make_accumulator() {
    accumulator_.reset();
    const bool tree = order_ == AdditionOrder::kTree;
    if (!tree && block().size() == 0) return;
    summing_ = tree ? *plan_ : ReductionPlan(block().size(), 1);
    const int rank = tree ? comm_.rank() : 0;
    pool_storage_ = Buffer();
    pool_storage_ = allocate(Scope::kComm, BufferPool::storage_floats(summing_->buffers_needed(rank), length_),
                             "partial gradient sums");
    pool_.emplace(std::span(pool_storage_.as<float>(), pool_storage_.size() / sizeof(float)), length_);
    accumulator_ = std::make_unique<TreeAccumulator>(*summing_, rank, *pool_);
  }

  /// The last micro-batch's gradient is added run by run as backward finishes it; the tree's books are closed now.
  void take_last(std::size_t index) {
    last_ = accumulator_->next_buffer().data();
    late_additions_.clear();
    accumulator_->push(position(index), [this](std::span<float> into, std::span<const float> from) {
      late_additions_.push_back({into.data(), from.data()});
    });
    partials_.clear();
    for (const Partial& partial : accumulator_->partials()) partials_.push_back(partial.sum.data());
    late_ = true;
  }

  void reduce_bucket(std::size_t b) {
    const Segment run = buckets_.buckets[b].flat;
    room_.steps.copy(last_ + run.begin, gradients() + run.begin, run.count);
    for (const LateAddition& a : late_additions_) {
      room_.steps.add(a.into + run.begin, a.from + run.begin, run.count);
    }
    room_.transport->wait_for(room_.steps.stream());
    reducer_->reduce(b, partials_, summed_.as<float>());
  }

  void reduce() override {
    if (room_.transport == nullptr) {
      room_.steps.copy(summed_.as<float>(), accumulator_->partials().front().sum.data(), length_);
      return;
    }
    const Block rest = schedule_.at_once();
    for (std::size_t b = rest.begin; b < rest.end; ++b) reducer_->reduce(b, {}, summed_.as<float>());
    room_.transport->release_to(room_.steps.stream());
  }

  std::vector<double> grad_norms_squared() override {
    if (room_.transport != nullptr) room_.transport->check_queued();
    return stepper_->gradient_norms_squared();
  }

  std::vector<PairReport> step(const StepInfo& info) override {
    check_learning_rate(info, options_.weight_decay);
    stepper_->step(info.step, info.lr, *info.grad_norm * *info.grad_norm);
    if (options_.balance_every > 0 && info.step % options_.balance_every == 0) stepper_->balance();
    const std::vector<DevicePairReport> done = stepper_->reports();
    std::vector<PairReport> reports;
    for (std::size_t i = 0; i < done.size(); ++i) {
      const DevicePairReport& d = done[i];
      if (!d.failure.empty()) {
        throw NumericError(std::string(d.failure), fmt::format("{}, step {}", views_[i].name, info.step),
                           "lower the learning rate or look at the batch of this step");
      }
      PairReport& report = reports.emplace_back();
      report.update_norm_squared = d.step_norm_squared_left + d.step_norm_squared_right;
      report.relative_step_left = relative(d.step_norm_squared_left, d.factor_norm_squared_left);
      report.relative_step_right = relative(d.step_norm_squared_right, d.factor_norm_squared_right);
      report.cholesky_raises = d.cholesky_raises;
    }
    return reports;
  }

  /// On the host, from copies: a few times in a run, and the figures need no kernel of their own.
  std::vector<PairFigures> describe_owned() override {
    std::vector<PairView> copies = views_;
    std::vector<std::vector<float>> factors;
    const auto fetched = [&](const float* from, std::size_t count) {
      std::vector<float>& to = factors.emplace_back(count);
      if (count > 0) room_.memory.storage().download(to.data(), from, count * sizeof(float));
      return to.data();
    };
    for (PairView& copy : copies) {
      copy.left = fetched(copy.left, copy.left_size());
      if (!copy.dense()) copy.right = fetched(copy.right, copy.right_size());
    }
    return describe_factors(copies);
  }

  void gather() override {
    if (room_.transport != nullptr) {
      room_.transport->wait_for(room_.steps.stream());
      for (std::size_t b = 0; b < buckets_.buckets.size(); ++b) reducer_->gather(b, model_.factors());
      room_.transport->release_to(room_.steps.stream());
    }
    if (!packs_) model_.pack();
  }

  void fetch_state(std::size_t i, std::span<float> to) override {
    room_.memory.storage().download(to.data(), views_[i].state.data(), to.size_bytes());
  }
  void put_state(std::size_t i, std::span<const float> from) override {
    room_.memory.storage().upload(views_[i].state.data(), from.data(), from.size_bytes());
  }

  DeviceRoom room_;
  AdditionOrder order_;
  BucketPlan buckets_;
  OverlapSchedule schedule_;  ///< of the last micro-batch, the only one that is reduced while backward goes on
  std::optional<ReductionPlan> summing_;
  Buffer pool_storage_;
  std::optional<BufferPool> pool_;
  std::unique_ptr<TreeAccumulator> accumulator_;
  std::unique_ptr<BucketReducer> reducer_;
  Buffer state_;
  Buffer summed_;  ///< the reduced gradient of the pairs this rank owns, in flat layout
  std::vector<PairView> views_;
  std::unique_ptr<DeviceOptimizer> stepper_;
  bool packs_ = false;  ///< the step itself

  // Of the last micro-batch of a step.
  bool late_ = false;
  std::size_t passed_ = 0;  ///< pairs of it that backward has finished
  float* last_ = nullptr;   ///< its gradient
  std::vector<LateAddition> late_additions_;
  std::vector<const float*> partials_;
};

}  // namespace

std::unique_ptr<ShardedStep> make_device_step(const OptimizerOptions& options, AdaptedModel& model,
                                              bool left_started_zero, std::size_t micro_batches, Communicator& comm,
                                              const DeviceRoom& room, AdditionOrder order) {
  return std::make_unique<DeviceStep>(options, model, left_started_zero, micro_batches, comm, room, order,
                                      plan_buckets(pair_shapes(*model.adapters()), comm.size()));
}

std::size_t device_optimizer_bytes(DeviceSteps& steps, const OptimizerOptions& options, std::span<const PairInfo> pairs,
                                   bool left_started_zero) {
  // Made in host memory with addresses that nobody reads, for the sake of its ledger.
  alignas(Memory::kAlignment) static std::array<float, 16> nowhere;
  std::vector<PairView> views;
  for (const PairInfo& p : pairs) {
    PairView& view = views.emplace_back();
    view.m = p.out;
    view.n = p.in;
    view.r = p.rank;
    view.scale = p.scale;
    view.left = view.right = nowhere.data();
    view.grad_left = view.grad_right = nowhere.data();
    view.state = nowhere;
    view.left_started_zero = left_started_zero;
  }
  Memory ledger;
  const auto made = steps.make_optimizer(device_pairs(views, options), device_options(options), ledger);
  return ledger.current(Scope::kOptimizer);
}

}  // namespace lomu

// What happens to gradients after backward: summed along the tree, reduced to the owners of the pairs, stepped there,
// and the new factors handed to everybody. The order of every addition is fixed by the micro-batch index, so the
// factors are the same bits on any number of ranks. This is what both kinds share: host_step.h works in host memory,
// device_step.h where a GPU's backend works.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/reduction_tree.h"
#include "comm/shard_plan.h"
#include "engine/optimizers/optimizer.h"
#include "models/decoder/adapted_model.h"
#include "models/decoder/adapter_set.h"
#include "models/decoder/decoder.h"

namespace lomu {

/// The figures of one step over all pairs, for the progress line and the metrics.
struct StepTotals {
  double grad_norm = 0.0;
  double update_norm = 0.0;
  double max_relative_step = 0.0;
  std::int64_t cholesky_raises = 0;
  std::vector<PairFigures> pairs;  ///< in pair order, when telemetry was asked for
};

/// The pairs' shapes, and where they lie in a flat buffer.
std::vector<PairShape> pair_shapes(const AdapterSet& adapters);

/// A pair as an optimizer's state goes by it.
ParameterShape parameter_shape(const PairInfo& pair);

class ShardedStep {
 public:
  virtual ~ShardedStep() = default;
  ShardedStep(const ShardedStep&) = delete;
  ShardedStep& operator=(const ShardedStep&) = delete;

  /// A step of `micro_batches` begins (the last one of a run may have fewer than the others).
  void begin(std::size_t micro_batches);
  /// The micro-batches of this rank.
  [[nodiscard]] Block block() const { return plan_->block(comm_.rank()); }
  /// Whether the step has something to do while backward of micro-batch `index` goes on: then passed() shall be called.
  [[nodiscard]] virtual bool listens(std::size_t /*index*/) const { return false; }
  /// Backward of micro-batch `index` has come past the first `pairs` pairs: their gradients are written, or queued to
  /// be. Lets reducing begin before backward ends.
  virtual void passed(std::size_t /*index*/, std::size_t /*pairs*/) {}
  /// What Decoder::forward_backward is to call for micro-batch `index`; empty where nobody listens.
  [[nodiscard]] PairHook hook(std::size_t index) {
    if (!listens(index)) return {};
    return [this, index](std::size_t pairs) { passed(index, pairs); };
  }
  /// Takes the gradient that backward left in the model's buffer as that of micro-batch `index`.
  virtual void add(std::size_t index) = 0;
  /// Collective: reduce, step, gather; the model then computes with the new factors. Returns the figures of the step,
  /// the same on every rank. `telemetry`: those of every pair too. Throws AgreedError naming step and pair for a
  /// gradient that is not finite: no factor has then moved anywhere.
  StepTotals finish(std::int64_t step, double lr, bool telemetry = false);

  /// Sums one double per micro-batch of the step along the tree. Collective.
  [[nodiscard]] double tree_sum_of(std::span<const double> mine);

  // ---- for checkpoints ---------------------------------------------------------------------------------------------

  [[nodiscard]] const Optimizer& optimizer() const { return *optimizer_; }
  /// State of every pair, in pair order, gathered to every rank. Collective.
  [[nodiscard]] std::vector<std::vector<float>> gather_state();
  /// Puts back the state of the pairs this rank owns. Throws FormatError when a size is wrong.
  void restore_state(const std::vector<std::vector<float>>& all);

 protected:
  ShardedStep(const OptimizerOptions& options, AdaptedModel& model, ShardPlan shards, Communicator& comm);

  /// Indices of the pairs this rank owns.
  [[nodiscard]] std::span<const std::size_t> owned() const {
    return shards_.pairs[static_cast<std::size_t>(comm_.rank())];
  }
  [[nodiscard]] const PairInfo& owned_pair(std::size_t i) const { return model_.adapters()->pairs()[owned()[i]]; }
  /// Floats of state of the pairs this rank owns.
  [[nodiscard]] std::size_t owned_state_size() const;
  /// Views of the owned pairs in buffers of the flat layout; `state` holds theirs one after the other.
  [[nodiscard]] std::vector<PairView> views(float* factors, const float* gradients, float* state,
                                            bool left_started_zero) const;

  AdaptedModel& model_;
  Communicator& comm_;
  OptimizerOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  ShardPlan shards_;
  std::size_t length_;  ///< floats of the flat buffers
  std::unique_ptr<ReductionPlan> plan_;

 private:
  // In the order in which a step calls them.

  /// A step like the last one begins, or, where plan_ has changed, another.
  virtual void prepare(bool plan_changed) = 0;
  /// Collective: brings the sum of the gradients of the owned pairs to their owner.
  virtual void reduce() = 0;
  /// Squared norms of the reduced gradients, of each owned pair.
  virtual std::vector<double> grad_norms_squared() = 0;
  /// Steps the owned pairs; throws NumericError naming pair and step.
  virtual std::vector<PairReport> step(const StepInfo& info) = 0;
  /// Telemetry of the owned pairs' factors as they are.
  virtual std::vector<PairFigures> describe_owned() = 0;
  /// Collective: the owners' factors reach everybody, and the model computes with them.
  virtual void gather() = 0;
  /// State of owned pair number i, copied to `to` or from `from`, which have its size.
  virtual void fetch_state(std::size_t i, std::span<float> to) = 0;
  virtual void put_state(std::size_t i, std::span<const float> from) = 0;

  /// Figures of the owned pairs, completed from the reports of their step -> those of every pair. Collective.
  std::vector<PairFigures> gather_figures(std::span<PairFigures> figures, std::span<const PairReport> reports);
  /// `width` numbers of each owned pair -> those of every pair, in pair order. Collective.
  std::vector<double> by_pair(std::span<const double> owned, std::size_t width);
};

}  // namespace lomu

// What happens to gradients after backward: summed along the tree, reduced to the owners of the pairs, stepped there,
// and the new factors handed to everybody. Owns the optimizer and its state for this rank's pairs. The order of every
// addition is fixed by the micro-batch index, so the factors are the same bits on any number of ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/gradient_reducer.h"
#include "comm/reduction_tree.h"
#include "comm/shard_plan.h"
#include "engine/optimizers/optimizer.h"
#include "kernels/memory.h"
#include "models/decoder/adapter_set.h"

namespace lomu {

/// The figures of one step over all pairs, for the progress line and the metrics.
struct StepTotals {
  double grad_norm = 0.0;
  double update_norm = 0.0;
  double max_relative_step = 0.0;
  std::int64_t cholesky_raises = 0;
};

class ShardedStep {
 public:
  /// `adapters` outlives this. `started_zero`: whether the left factors were zero at the start of the run.
  /// `micro_batches`: of a full step. Throws UsageError as Optimizer::check does.
  ShardedStep(const OptimizerOptions& options, AdapterSet& adapters, bool started_zero, std::size_t micro_batches,
              Communicator& comm, Memory& memory);

  /// The micro-batches of this rank in a step of `micro_batches` (the last step of a run may have fewer).
  void begin(std::size_t micro_batches);
  [[nodiscard]] Block block() const { return plan_->block(comm_.rank()); }
  /// Takes the gradient that backward left in the adapter set as that of micro-batch `index`.
  void add(std::size_t index);
  /// Collective: reduce, step, gather. Returns the figures of the step, the same on every rank. Throws AgreedError
  /// naming step and pair for a gradient that is not finite: no factor has then moved anywhere.
  StepTotals finish(std::int64_t step, double lr);

  /// Sums one double per micro-batch of the step along the tree. Collective.
  [[nodiscard]] double tree_sum_of(std::span<const double> mine);

  // ---- for checkpoints ---------------------------------------------------------------------------------------------

  [[nodiscard]] std::span<const StateSlot> state_slots() const { return optimizer_->state_slots(); }
  /// State of every pair, in pair order, gathered to every rank. Collective.
  [[nodiscard]] std::vector<std::vector<float>> gather_state();
  /// Puts back the state of the pairs this rank owns. Throws FormatError when a size is wrong.
  void restore_state(const std::vector<std::vector<float>>& all);

 private:
  void make_views();
  /// `width` numbers of each owned pair -> those of every pair, in pair order. Collective.
  std::vector<double> by_pair(std::span<const double> owned, std::size_t width);

  AdapterSet& adapters_;
  Communicator& comm_;
  Memory& memory_;
  OptimizerOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  std::size_t length_;  ///< floats of the flat buffers
  ShardPlan shards_;
  bool started_zero_;

  std::unique_ptr<ReductionPlan> plan_;
  Buffer pool_storage_;
  std::unique_ptr<BufferPool> pool_;
  std::unique_ptr<TreeAccumulator> accumulator_;
  Buffer workspace_;
  std::unique_ptr<GradientReducer> reducer_;
  Buffer summed_;  ///< the reduced gradient of the pairs this rank owns, in flat layout; unused with one rank
  Buffer state_;
  std::vector<PairView> views_;  ///< of the owned pairs
};

}  // namespace lomu

// Which micro-batches make step s of a run: `micro_batches` consecutive ones of the epochs laid end to end. A run that
// resumes asks for its step and goes on; nothing else is remembered. Knows nothing of ranks: the trainer cuts a step's
// list into one contiguous block a rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/data/packing.h"

namespace lomu {

struct StepOptions {
  PackOptions packing;              ///< its `epoch` is ignored
  std::uint32_t micro_batches = 1;  ///< micro-batches of one step, over all ranks
  double epochs = 1.0;              ///< used when max_steps is 0; may be fractional
  std::uint64_t max_steps = 0;      ///< when not 0: the run's length, over as many epochs as that takes
};

/// One micro-batch of a step. `examples` index the lengths the plan was made of.
struct PlannedMicroBatch {
  std::uint64_t epoch = 0;
  std::uint64_t index = 0;  ///< inside the epoch
  std::vector<std::uint32_t> examples;

  bool operator==(const PlannedMicroBatch&) const = default;
};

/// One step. Every step has `micro_batches` entries but the last of a run counted in epochs, which may have fewer.
struct PlannedStep {
  std::vector<PlannedMicroBatch> micro_batches;
  std::uint64_t tokens = 0;
  std::uint64_t supervised = 0;  ///< tokens that are predicted: what the step's loss is divided by
};

class StepPlan {
 public:
  /// lengths[i], supervised[i]: tokens and predicted tokens of example i. Copies both.
  /// Throws UsageError when there is no example, a count is 0, or an example does not fit a micro-batch.
  StepPlan(std::span<const std::uint32_t> lengths, std::span<const std::uint32_t> supervised,
           const StepOptions& options);

  /// Steps of the whole run.
  [[nodiscard]] std::uint64_t total_steps() const { return total_steps_; }

  /// Step s in [0, total_steps()). Steps in order cost nothing extra; a jump forward plans every epoch it passes over
  /// once. Throws UsageError when s is not below total_steps().
  PlannedStep step(std::uint64_t s);

  /// Epochs done before step s begins: 1.5 is half way through the second.
  double epochs_before(std::uint64_t s);

  /// Tokens held over tokens that fit, in the first epoch.
  [[nodiscard]] double fill() const { return fill_; }

 private:
  const EpochPlan& epoch_plan(std::uint64_t epoch);
  std::uint64_t first_micro_batch(std::uint64_t epoch);
  std::uint64_t epoch_of(std::uint64_t micro_batch);

  std::vector<std::uint32_t> lengths_;
  std::vector<std::uint32_t> supervised_;
  StepOptions options_;
  std::vector<std::uint64_t> first_;  // first_[e]: micro-batches before epoch e, for the epochs planned so far
  EpochPlan current_;
  std::uint64_t current_epoch_ = 0;
  std::uint64_t total_micro_batches_ = 0;  // 0: as many as total_steps_ takes
  std::uint64_t total_steps_ = 0;
  double fill_ = 0;
};

/// The number of micro-batches a step needs is at least the number of ranks, or ranks would have nothing to do.
/// Throws UsageError naming both, with the settings that would fit.
void check_ranks(int world_size, std::uint32_t micro_batches);

}  // namespace lomu

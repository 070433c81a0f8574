// The step after backward in host memory: gradients move over the Communicator, the optimizer is that of
// engine/optimizers.
#pragma once

#include <memory>

#include "engine/train/sharded_step.h"
#include "kernels/memory.h"

namespace lomu {

/// `model`, `comm` and `memory` outlive the result. `left_started_zero`: whether the left factors were zero at the
/// start of the run. `micro_batches`: of a full step. Throws UsageError as Optimizer::check does.
std::unique_ptr<ShardedStep> make_host_step(const OptimizerOptions& options, AdaptedModel& model,
                                            bool left_started_zero, std::size_t micro_batches, Communicator& comm,
                                            Memory& memory);

}  // namespace lomu

// The step after backward on a device: gradients stay there, move between devices over a DeviceTransport, and one set
// of launches steps all pairs of a rank. Reducing begins while backward of the last micro-batch goes on.
#pragma once

#include <memory>

#include "comm/bucket_reducer.h"
#include "comm/device_transport.h"
#include "engine/train/sharded_step.h"
#include "kernels/device_steps.h"
#include "kernels/memory.h"

namespace lomu {

/// Where a device step works. All outlive it.
struct DeviceRoom {
  DeviceSteps& steps;
  Memory& memory;              ///< of the device
  DeviceTransport* transport;  ///< between the ranks' devices; null where there is one rank
};

/// As make_host_step. `order`: kTree makes the same bits on any number of ranks.
std::unique_ptr<ShardedStep> make_device_step(const OptimizerOptions& options, AdaptedModel& model,
                                              bool left_started_zero, std::size_t micro_batches, Communicator& comm,
                                              const DeviceRoom& room, AdditionOrder order);

/// Bytes of Scope::kOptimizer that a step of these pairs takes beside their state, without taking them.
std::size_t device_optimizer_bytes(DeviceSteps& steps, const OptimizerOptions& options, std::span<const PairInfo> pairs,
                                   bool left_started_zero);

}  // namespace lomu

// Which kind of step a session's backend takes, with all it needs: on a device of several ranks that is NCCL between
// them.
#pragma once

#include <cstddef>
#include <memory>

#include "comm/communicator.h"
#include "comm/device_transport.h"
#include "engine/config/train_config.h"
#include "engine/session/model_session.h"
#include "engine/train/sharded_step.h"
#include "models/decoder/adapted_model.h"

namespace lomu {

/// Between the devices of the ranks of a job; null where there is one rank, or no device. Collective. Throws what
/// make_nccl_transport throws.
std::unique_ptr<DeviceTransport> open_transport(const config::RuntimeConfig& runtime, const ModelSession& session,
                                                Communicator& comm);

/// The step of `job` on the backend of `session`; `transport` is what open_transport gave. All outlive the result.
/// `left_started_zero`: whether the left factors were zero at the start of the run. Throws UsageError as
/// Optimizer::check does.
std::unique_ptr<ShardedStep> make_step(const config::TrainConfig& job, const ModelSession& session, AdaptedModel& model,
                                       bool left_started_zero, Communicator& comm, DeviceTransport* transport);

}  // namespace lomu

#include "engine/train/make_step.h"

#include <chrono>
#include <cstdint>

#include "comm/nccl/nccl_transport.h"
#include "engine/train/device_step.h"
#include "engine/train/host_step.h"
#include "engine/train/job_options.h"

namespace lomu {

std::unique_ptr<DeviceTransport> open_transport(const config::RuntimeConfig& runtime, const ModelSession& session,
                                                Communicator& comm) {
  if (session.device_steps() == nullptr || comm.size() == 1) return nullptr;
  NcclOptions options;
  options.deterministic = runtime.deterministic;
  options.deadline = std::chrono::milliseconds(static_cast<std::int64_t>(runtime.comm_timeout * 1000));
  options.share_device = gpus_are_shared();
  return make_nccl_transport(comm, *session.compute().cuda_device, session.memory(), options);
}

std::unique_ptr<ShardedStep> make_step(const config::TrainConfig& job, const ModelSession& session, AdaptedModel& model,
                                       bool left_started_zero, Communicator& comm, DeviceTransport* transport) {
  const OptimizerOptions options = optimizer_options(job, model.config());
  const auto micro_batches = static_cast<std::size_t>(job.training.micro_batches);
  DeviceSteps* steps = session.device_steps();
  if (steps == nullptr) {
    return make_host_step(options, model, left_started_zero, micro_batches, comm, session.host_memory());
  }
  return make_device_step(options, model, left_started_zero, micro_batches, comm, {*steps, session.memory(), transport},
                          job.runtime.deterministic ? AdditionOrder::kTree : AdditionOrder::kLibrary);
}

}  // namespace lomu

// NCCL reads most of its settings from the environment, once, at its first call in a process. Which ones this project
// sets, and why. Values that the user has set stay.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lomu {

using EnvironmentSettings = std::vector<std::pair<std::string, std::string>>;

/// For sums that are the same bits in every run: NVLink SHARP adds in an order that changes from run to run. In tree
/// order NCCL adds nothing at all; this keeps the promise also for what a later version might choose.
EnvironmentSettings nccl_settings_deterministic();

/// For tests: several ranks on one GPU. NCCL refuses two ranks with the same host and GPU, so each rank names a host of
/// its own and they talk over sockets, one at a time: two or three ranks, without MPS, every collective finished before
/// the next is queued. About 2 ms a collective: it shows that results are right, never how fast they come.
EnvironmentSettings nccl_settings_loopback(int rank);

/// Sets what is not set yet. Call it before the process has threads of its own and before NCCL's first call.
void apply_settings(const EnvironmentSettings& settings);

}  // namespace lomu

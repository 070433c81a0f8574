// What a training run will take of the memory that its operations work in, by scope, before anything is loaded: what
// `lomu plan` prints and what a run's ledger is compared with.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/config/train_config.h"
#include "kernels/device_steps.h"
#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/decoder/recompute.h"
#include "models/files/model_config.h"

namespace lomu {

struct MemoryPlan {
  std::array<std::size_t, kScopes> bytes{};
  std::size_t kept_of_a_block = 0;  ///< bytes that a block keeps of one token for its backward pass

  [[nodiscard]] std::size_t of(Scope scope) const { return bytes[static_cast<std::size_t>(scope)]; }
  [[nodiscard]] std::size_t total() const;
};

/// One rank alone; with more, the optimizer's part is shared and buffers for messages are added. `steps`: of the device
/// that `ops` works on, null on a host. `longest`: record, in tokens. Throws UsageError as plan_pairs() does, and for
/// an optimizer that cannot step the pairs.
MemoryPlan plan_memory(const config::TrainConfig& job, const ModelConfig& model, const Ops& ops, DeviceSteps* steps,
                       Recompute level, std::int64_t longest);

}  // namespace lomu

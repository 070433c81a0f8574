// A way to compute, complete: the operations, the ledger of the memory they work in, and the device behind both.
#pragma once

#include <memory>

#include "kernels/device_steps.h"
#include "kernels/memory.h"
#include "kernels/ops.h"

namespace lomu {

/// Members go in reverse order: the operations first, the device last.
struct Backend {
  std::shared_ptr<void> device;  ///< whatever `memory` and `ops` stand on; null on the host
  std::unique_ptr<Memory> memory;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<DeviceSteps> steps;  ///< null where `ops` works in host memory
};

}  // namespace lomu

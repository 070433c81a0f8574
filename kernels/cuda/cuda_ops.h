// The CUDA backend behind kernels/ops.h. All tensors, packed weights and factors lie in the device's storage.
#pragma once

#include <memory>

#include "kernels/cuda/cuda_options.h"
#include "kernels/cuda/device.h"
#include "kernels/ops.h"

namespace lomu::cuda {

/// `device` and `memory` outlive the operations; `memory` is made on device.storage(). Throws UsageError for a
/// precision other than bf16 and f32.
std::unique_ptr<Ops> make_cuda_ops(const Precision& precision, Device& device, Memory& memory,
                                   const CudaOptions& options = {});

}  // namespace lomu::cuda

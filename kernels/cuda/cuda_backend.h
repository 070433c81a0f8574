// The CUDA backend as the engine sees it. In a build without CUDA the functions exist and say so.
#pragma once

#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/cuda_options.h"
#include "kernels/ops.h"

namespace lomu::cuda {

/// Whether this build has the backend at all.
bool built_with_cuda();

/// PCI addresses of the devices that this process may use, in the runtime's order; none without the backend, a driver
/// or a device. Wakes no device.
std::vector<std::string> device_buses();
/// Why there are none, in the runtime's words; empty where there are.
std::string device_refusal();

/// Operations on device `index` with the ledger of its memory. Throws UsageError: no such device, one older than this
/// build's kernels, a precision other than bf16 and f32, or a build without CUDA. The environment's
/// LOMU_PRODUCT_TIMING=0 keeps options.deterministic = false from measuring matrix products, LOMU_CUDA_GRAPH=0 keeps
/// micro-batches from being recorded.
Backend make_backend(const Precision& precision, int index, const CudaOptions& options = {});

}  // namespace lomu::cuda

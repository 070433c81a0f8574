// A machine with GPUs that are emulated, in place of kernels/cuda/cuda_backend.cpp.
#include <cstdlib>
#include <string>
#include <utility>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_steps.h"

namespace lomu::cuda {

bool built_with_cuda() {
  return true;
}

/// Four, or as many as LOMU_EMULATED_GPUS says.
int device_count() {
  const char* count = std::getenv("LOMU_EMULATED_GPUS");
  return count == nullptr ? 4 : std::stoi(count);
}

Backend make_backend(const Precision& precision, int, const CudaOptions& options) {
  std::shared_ptr<Device> device = make_emulated_device();
  Backend backend;
  backend.memory = std::make_unique<Memory>(device->storage());
  backend.ops = make_cuda_ops(precision, *device, *backend.memory, options);
  backend.steps = make_device_steps(*device);
  backend.device = std::move(device);
  return backend;
}

}  // namespace lomu::cuda

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

/// One, or as many as LOMU_EMULATED_GPUS says.
std::vector<std::string> device_buses() {
  const char* count = std::getenv("LOMU_EMULATED_GPUS");
  std::vector<std::string> buses;
  for (int i = 0; i < (count == nullptr ? 1 : std::stoi(count)); ++i) buses.push_back("gpu " + std::to_string(i));
  return buses;
}

std::string device_refusal() {
  return device_buses().empty() ? "none is emulated" : "";
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

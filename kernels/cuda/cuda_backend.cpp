#include "kernels/cuda/cuda_backend.h"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_steps.h"

namespace lomu::cuda {
namespace {

/// Whether the environment's variable is 0.
bool is_off(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && std::string_view(value) == "0";
}

}  // namespace

bool built_with_cuda() {
  return true;
}

std::vector<std::string> device_buses() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  std::vector<std::string> buses;
  for (int device = 0; device < count; ++device) {
    char bus[32] = {};
    if (cudaDeviceGetPCIBusId(bus, sizeof bus, device) == cudaSuccess) buses.emplace_back(bus);
  }
  cudaGetLastError();  // no driver is an answer here, not a failure of the next call
  return buses;
}

std::string device_refusal() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return count == 0 ? "no GPU is there" : "";
}

Backend make_backend(const Precision& precision, int index, const CudaOptions& options) {
  ProductOptions products;
  products.timed = !options.deterministic && !is_off("LOMU_PRODUCT_TIMING");
  products.warn = [](const std::string& text) { fmt::print(stderr, "warning    {}\n", text); };
  std::shared_ptr<Device> device = make_cuda_device(index, products);
  Backend backend;
  backend.memory = std::make_unique<Memory>(device->storage());
  CudaOptions chosen = options;
  chosen.recordings = chosen.recordings && !is_off("LOMU_CUDA_GRAPH");
  backend.ops = make_cuda_ops(precision, *device, *backend.memory, chosen);
  backend.steps = make_device_steps(*device);
  backend.device = std::move(device);
  return backend;
}

}  // namespace lomu::cuda

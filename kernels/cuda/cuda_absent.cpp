// What a build without CUDA says.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/error.h"

namespace lomu::cuda {

bool built_with_cuda() {
  return false;
}

std::vector<std::string> device_buses() {
  return {};
}

std::string device_refusal() {
  return "this build has no CUDA backend";
}

Backend make_backend(const Precision&, int, const CudaOptions&) {
  throw UsageError("this build has no CUDA backend", "device",
                   "build with `cmake --preset cuda` where nvcc is on PATH, or use device cpu");
}

}  // namespace lomu::cuda

// The facts of a build without CUDA.
#include "kernels/cuda/device_facts.h"

namespace lomu::cuda {

DeviceFacts device_facts() {
  return {};
}

}  // namespace lomu::cuda

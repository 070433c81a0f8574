#include "kernels/cuda/device_facts.h"

#include <cublasLt.h>
#include <cuda_runtime.h>

#include "kernels/cuda/architectures.h"
#include "kernels/cuda/cudnn_attention.h"

namespace lomu::cuda {
namespace {

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  if (cudaDeviceGetAttribute(&value, which, device) == cudaSuccess) return value;
  cudaGetLastError();  // an unknown fact is no failure of the next call
  return 0;
}

GpuFacts facts_of(int device) {
  GpuFacts facts;
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, device) == cudaSuccess) {
    facts.name = properties.name;
    facts.major = properties.major;
    facts.minor = properties.minor;
    facts.memory_bytes = properties.totalGlobalMem;
  }
  char bus[32] = {};
  if (cudaDeviceGetPCIBusId(bus, sizeof bus, device) == cudaSuccess) facts.bus = bus;
  facts.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device);
  facts.clock_mhz = attribute(cudaDevAttrClockRate, device) / 1000;
  facts.memory_clock_mhz = attribute(cudaDevAttrMemoryClockRate, device) / 1000;
  facts.bus_bits = attribute(cudaDevAttrGlobalMemoryBusWidth, device);
  facts.l2_bytes = static_cast<std::uint64_t>(attribute(cudaDevAttrL2CacheSize, device));
  facts.exclusive = attribute(cudaDevAttrComputeMode, device) != cudaComputeModeDefault;
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  if (cudaSetDevice(device) == cudaSuccess && cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess) {
    facts.memory_free_bytes = free_bytes;
  }
  cudaGetLastError();
  facts.suits = runs_on(LOMU_CUDA_ARCHITECTURES, facts.major, facts.minor);
  return facts;
}

}  // namespace

DeviceFacts device_facts() {
  DeviceFacts facts;
  facts.built = true;
  facts.architectures = LOMU_CUDA_ARCHITECTURES;
  facts.toolkit = CUDART_VERSION;
  cudaRuntimeGetVersion(&facts.runtime);
  cudaDriverGetVersion(&facts.driver);
  facts.cublaslt = cublasLtGetVersion();
  const CudnnFacts cudnn = cudnn_facts();
  facts.cudnn_built = cudnn.built_with;
  facts.cudnn = cudnn.loaded;
  facts.cudnn_refusal = cudnn.refusal;
  int before = 0;
  int count = 0;
  if (cudaGetDevice(&before) != cudaSuccess) before = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    facts.refusal = cudaGetErrorString(status);
    cudaGetLastError();
    return facts;
  }
  if (count == 0) facts.refusal = "no GPU is there";
  for (int device = 0; device < count; ++device) facts.gpus.push_back(facts_of(device));
  if (count > 0) cudaSetDevice(before);
  return facts;
}

}  // namespace lomu::cuda

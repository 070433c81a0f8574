// What a build and a machine have of CUDA, as plain facts: for `lomu doctor` and for reports of measurements. Computes
// nothing and creates no context on a device beyond what asking for its free memory takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lomu::cuda {

struct GpuFacts {
  std::string name;
  std::string bus;  ///< PCI address, "0000:3b:00.0"
  int major = 0, minor = 0;
  int multiprocessors = 0;
  int clock_mhz = 0, memory_clock_mhz = 0;  ///< highest; 0: the driver does not say
  int bus_bits = 0;
  std::uint64_t l2_bytes = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_free_bytes = 0;
  bool exclusive = false;  ///< in a compute mode that admits one process only, or none
  bool suits = false;      ///< kernels of this build run there
};

struct DeviceFacts {
  bool built = false;           ///< this build has the CUDA backend; without it the rest is empty
  std::string architectures;    ///< CMake's list, apart by commas
  int toolkit = 0;              ///< that it was compiled with: 13000 is 13.0
  int runtime = 0;              ///< that it runs with
  int driver = 0;               ///< newest CUDA version that the driver serves; 0: no driver
  std::size_t cublaslt = 0;     ///< 130100 is 13.1.0
  std::size_t cudnn_built = 0;  ///< that it was compiled with: 91900 is 9.19.0; 0: without
  std::size_t cudnn = 0;        ///< that it runs with; 0: none
  std::string cudnn_refusal;    ///< why attention cannot use it; empty where it can
  std::string refusal;          ///< why no GPU can be used, in the runtime's words; empty where one can
  std::vector<GpuFacts> gpus;
};

DeviceFacts device_facts();

/// "13.0" for 13000.
inline std::string cuda_version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace lomu::cuda

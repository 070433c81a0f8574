#include "engine/session/compute.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "engine/session/cores.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/error.h"

namespace lomu {
namespace {

// As many cores as a rank tells the others about; a host with more is one where only these count.
constexpr std::size_t kMaxCores = 1024;

/// What a rank tells the others: its host, by the leader's rank, and the cores it may run on.
struct Cores {
  std::int64_t host = 0;
  std::array<std::uint8_t, kMaxCores> allowed{};
};

Precision precision_of(const ComputeRequest& request, const ComputeChoice& choice) {
  using config::ComputeType;
  if (request.dtype == ComputeType::kF32) return kF32Precision;
  const bool gpu = choice.cuda_device.has_value();
  const bool cpu = !gpu && choice.backend == config::BackendName::kCpu;
  if (request.dtype == ComputeType::kAuto) {
    return gpu || (cpu && cpu_has_fast_bf16()) ? kBF16Precision : kF32Precision;
  }
  if (cpu && !cpu_has_fast_bf16()) {
    throw UsageError("this CPU has no bf16 instructions (AVX512_BF16 or AMX)", "dtype", "use dtype f32 or auto");
  }
  return kBF16Precision;
}

/// The GPU of this rank; none: the CPU. Throws as choose_compute does.
std::optional<int> gpu_of(const ComputeRequest& request, const Communicator& comm) {
  using config::DeviceName;
  const bool named = request.device == DeviceName::kCuda;
  if (request.device == DeviceName::kCpu || request.backend != config::BackendName::kAuto) {
    if (!named) return {};
    throw UsageError("this backend runs on the CPU, and the device is cuda", "device", "leave the backend out");
  }
  if (named && !cuda::built_with_cuda()) {
    throw UsageError("this build has no CUDA backend", "device",
                     "build with `cmake --preset cuda` where nvcc is on PATH, or use device cpu");
  }
  const int count = cuda::device_count();
  if (count == 0) {
    if (!named) return {};
    throw UsageError("no GPU can be used here", "device", "check the driver with nvidia-smi, or use device cpu");
  }
  if (comm.local_size() > count && !gpus_are_shared()) {
    throw UsageError(
        fmt::format("{} ranks on a machine with {} GPU{}", comm.local_size(), count, count == 1 ? "" : "s"), "device",
        fmt::format("start one rank for each GPU (mpirun -np {}), or use device cpu", count));
  }
  return comm.local_rank() % count;
}

}  // namespace

std::string ComputeChoice::text() const {
  if (cuda_device) {
    return fmt::format("GPU {}, {}{}", *cuda_device, name_of(precision.activation),
                       deterministic ? "" : ", not deterministic");
  }
  return fmt::format("{}, {}, {} thread{}", backend == config::BackendName::kCpu ? "cpu" : "reference",
                     name_of(precision.activation), threads, threads == 1 ? "" : "s");
}

int share_of_cores(Communicator& comm) {
  Cores mine;
  mine.host = comm.local_leader();
  for (const int core : allowed_cores()) {
    if (static_cast<std::size_t>(core) < kMaxCores) mine.allowed[static_cast<std::size_t>(core)] = 1;
  }
  std::vector<Cores> all(static_cast<std::size_t>(comm.size()));
  comm.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), "cores of each rank");

  double share = 0;
  for (std::size_t core = 0; core < kMaxCores; ++core) {
    if (mine.allowed[core] == 0) continue;
    share += 1.0 / static_cast<double>(std::count_if(all.begin(), all.end(), [&](const Cores& other) {
               return other.host == mine.host && other.allowed[core] != 0;
             }));
  }
  if (const auto quota = container_quota()) share = std::min(share, *quota / comm.local_size());
  // Thirds of a core that several ranks share may add up to a little less than they are.
  return std::max(1, static_cast<int>(share + 1e-6));
}

ComputeChoice choose_compute(const ComputeRequest& request, Communicator& comm) {
  ComputeChoice choice;
  choice.backend = request.backend == config::BackendName::kAuto ? config::BackendName::kCpu : request.backend;
  comm.together(
      [&] {
        choice.cuda_device = gpu_of(request, comm);
        choice.precision = precision_of(request, choice);
      },
      "choosing the device");
  choice.deterministic = request.deterministic;
  choice.threads = request.threads > 0 ? request.threads : share_of_cores(comm);
  return choice;
}

bool gpus_are_shared() {
  const char* value = std::getenv("LOMU_SHARE_GPU");
  return value != nullptr && std::string_view(value) == "1";
}

Backend open_backend(const ComputeChoice& choice) {
  if (choice.cuda_device) {
    cuda::CudaOptions options;
    options.deterministic = choice.deterministic;
    return cuda::make_backend(choice.precision, *choice.cuda_device, options);
  }
  Backend backend;
  backend.memory = std::make_unique<Memory>();
  backend.ops = choice.backend == config::BackendName::kReference
                    ? make_reference_ops(choice.precision)
                    : make_cpu_ops(choice.precision, choice.threads, *backend.memory);
  return backend;
}

}  // namespace lomu

#include "engine/session/compute.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "engine/session/cores.h"
#include "engine/session/gpu_choice.h"
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

/// Whether a GPU is wanted here, and possible. Throws as choose_compute does.
bool wants_gpu(const ComputeRequest& request) {
  using config::DeviceName;
  const bool named = request.device == DeviceName::kCuda;
  if (request.device == DeviceName::kCpu || request.backend != config::BackendName::kAuto) {
    if (!named) return false;
    throw UsageError("this backend runs on the CPU, and the device is cuda", "device", "leave the backend out");
  }
  if (named && !cuda::built_with_cuda()) {
    throw UsageError("this build has no CUDA backend", "device",
                     "build with `cmake --preset cuda` where nvcc is on PATH, or use device cpu");
  }
  const std::string refusal = cuda::device_refusal();
  if (refusal.empty()) return true;
  if (!named) return false;
  throw UsageError("no GPU can be used here: " + refusal, "device",
                   "check the driver with nvidia-smi, or use device cpu");
}

/// What a rank tells the others of its GPUs.
struct GpuList {
  static constexpr std::size_t kMost = 64;
  std::int64_t host = 0;
  std::array<std::array<char, 24>, kMost> buses{};
};

/// Collective.
std::vector<VisibleGpus> visible_gpus(Communicator& comm) {
  GpuList mine;
  mine.host = comm.local_leader();
  const std::vector<std::string> buses = cuda::device_buses();
  for (std::size_t i = 0; i < std::min(buses.size(), GpuList::kMost); ++i) {
    buses[i].copy(mine.buses[i].data(), mine.buses[i].size() - 1);
  }
  std::vector<GpuList> all(static_cast<std::size_t>(comm.size()));
  comm.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), "GPUs of each rank");
  std::vector<VisibleGpus> ranks;
  for (const GpuList& list : all) {
    VisibleGpus& rank = ranks.emplace_back();
    rank.host = static_cast<int>(list.host);
    for (const auto& bus : list.buses) {
      if (bus.front() != '\0') rank.buses.emplace_back(bus.data());
    }
  }
  return ranks;
}

/// The GPU of this rank; none: the CPU. Collective. Throws as choose_compute does.
std::optional<int> gpu_of(const ComputeRequest& request, Communicator& comm) {
  // Ranks that disagree about this would wait for each other in the next collective.
  std::array<double, 1> wanted{comm.together([&] { return wants_gpu(request); }, "looking for a GPU") ? 1.0 : 0.0};
  comm.all_reduce_max(wanted, "whether any rank takes a GPU");
  if (wanted[0] == 0.0) return {};
  const std::vector<VisibleGpus> ranks = visible_gpus(comm);
  GpuSharing sharing = request.every_gpu ? GpuSharing::kOneEach : GpuSharing::kAtMostOne;
  if (gpus_are_shared()) sharing = GpuSharing::kShared;
  return comm.together([&] { return choose_gpu(ranks, comm.rank(), sharing); }, "choosing the device");
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
  choice.cuda_device = gpu_of(request, comm);
  comm.together([&] { choice.precision = precision_of(request, choice); }, "choosing the type to compute in");
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

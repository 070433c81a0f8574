#include "engine/session/compute.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "engine/session/cores.h"
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

Precision precision_of(const ComputeRequest& request, config::BackendName backend) {
  using config::ComputeType;
  const bool cpu = backend == config::BackendName::kCpu;
  if (request.dtype == ComputeType::kF32) return kF32Precision;
  if (request.dtype == ComputeType::kAuto) return cpu && cpu_has_fast_bf16() ? kBF16Precision : kF32Precision;
  if (cpu && !cpu_has_fast_bf16()) {
    throw UsageError("this CPU has no bf16 instructions (AVX512_BF16 or AMX)", "dtype", "use dtype f32 or auto");
  }
  return kBF16Precision;
}

}  // namespace

std::string ComputeChoice::text() const {
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
  if (request.device == config::DeviceName::kCuda) {
    throw UsageError("this build has no CUDA backend", "device", "use device cpu");
  }
  ComputeChoice choice;
  choice.backend = request.backend == config::BackendName::kAuto ? config::BackendName::kCpu : request.backend;
  choice.precision = comm.together([&] { return precision_of(request, choice.backend); }, "choosing the backend");
  choice.threads = request.threads > 0 ? request.threads : share_of_cores(comm);
  return choice;
}

Backend open_backend(const ComputeChoice& choice) {
  Backend backend;
  backend.memory = std::make_unique<Memory>();
  backend.ops = choice.backend == config::BackendName::kReference
                    ? make_reference_ops(choice.precision)
                    : make_cpu_ops(choice.precision, choice.threads, *backend.memory);
  return backend;
}

}  // namespace lomu

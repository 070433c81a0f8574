#include "engine/session/gpu_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "kernels/error.h"

namespace lomu {
namespace {

std::string counted(std::size_t count, const char* thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

/// "0,1": the first `count` GPUs, as CUDA_VISIBLE_DEVICES takes them.
std::string first_gpus(std::size_t count) {
  std::string list = "0";
  for (std::size_t i = 1; i < count; ++i) list += fmt::format(",{}", i);
  return list;
}

}  // namespace

int choose_gpu(std::span<const VisibleGpus> ranks, int rank, GpuSharing sharing) {
  const VisibleGpus& mine = ranks[static_cast<std::size_t>(rank)];
  if (mine.buses.empty()) {
    throw UsageError("no GPU can be used here", "device", "check the driver with nvidia-smi, or use device cpu");
  }
  std::vector<int> neighbours;  // the ranks of this machine
  for (int other = 0; other < static_cast<int>(ranks.size()); ++other) {
    if (ranks[static_cast<std::size_t>(other)].host == mine.host) neighbours.push_back(other);
  }
  const auto sees = [&](int other) -> const std::vector<std::string>& {
    return ranks[static_cast<std::size_t>(other)].buses;
  };
  const bool alike =
      std::all_of(neighbours.begin(), neighbours.end(), [&](int other) { return sees(other) == mine.buses; });
  if (!alike) {
    for (const int other : neighbours) {
      if (other >= rank) break;
      if (sharing == GpuSharing::kShared || sees(other).empty() || sees(other).front() != mine.buses.front()) continue;
      throw UsageError(fmt::format("ranks {} and {} were both given the GPU {}", other, rank, mine.buses.front()),
                       "device", "let the scheduler show every rank all GPUs of the machine, or each one of its own");
    }
    return 0;
  }
  const auto place =
      static_cast<std::size_t>(std::find(neighbours.begin(), neighbours.end(), rank) - neighbours.begin());
  const std::size_t gpus = mine.buses.size();
  if (sharing == GpuSharing::kShared) return static_cast<int>(place % gpus);
  const std::string mismatch =
      fmt::format("{} on a machine with {}", counted(neighbours.size(), "rank"), counted(gpus, "GPU"));
  if (neighbours.size() > gpus) {
    throw UsageError(mismatch, "device",
                     fmt::format("start one rank for each GPU (mpirun -np {}), or use device cpu", gpus));
  }
  if (neighbours.size() < gpus && sharing == GpuSharing::kOneEach) {
    throw UsageError(mismatch, "device",
                     fmt::format("start one rank for each GPU (mpirun -np {}, on several machines with --map-by "
                                 "ppr:{}:node), or name those to use: CUDA_VISIBLE_DEVICES={}",
                                 gpus, gpus, first_gpus(neighbours.size())));
  }
  return static_cast<int>(place);
}

}  // namespace lomu

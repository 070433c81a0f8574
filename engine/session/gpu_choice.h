// Which GPU each rank of a machine takes, from what every rank sees. No CUDA here: the lists are given.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace lomu {

/// What a rank may use: PCI addresses in the order in which the runtime counts them.
struct VisibleGpus {
  int host = 0;  ///< the same for the ranks of a machine
  std::vector<std::string> buses;
};

enum class GpuSharing {
  kOneEach,    ///< as many ranks on a machine as it shows GPUs: a training job
  kAtMostOne,  ///< GPUs may be left over: one process that looks at a model
  kShared,     ///< several ranks may have one: tests
};

/// The number, among those that it sees, of the GPU that `rank` takes. Where all ranks of a machine see the same GPUs
/// each takes that of its place among them; where a scheduler has shown each rank some of its own, each takes its
/// first. Throws UsageError: no GPU, more ranks than GPUs, fewer (kOneEach), two ranks that were shown the same one.
int choose_gpu(std::span<const VisibleGpus> ranks, int rank, GpuSharing sharing);

}  // namespace lomu

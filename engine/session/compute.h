// Where and how a model is computed: what a user asked for ("auto", "bf16", 0 threads), turned into what this machine
// does. No arithmetic here, and no model.
#pragma once

#include <optional>
#include <string>

#include "comm/communicator.h"
#include "engine/config/train_config.h"
#include "kernels/backend.h"

namespace lomu {

struct ComputeRequest {
  config::DeviceName device = config::DeviceName::kAuto;
  config::BackendName backend = config::BackendName::kAuto;
  config::ComputeType dtype = config::ComputeType::kAuto;
  int threads = 0;            ///< of this rank; 0: a fair share of the cores it may use
  bool deterministic = true;  ///< the same bits in every run; false: a GPU may measure which of its ways is the fastest
  bool every_gpu = false;     ///< a GPU without a rank is a mistake, as in a training job
};

/// What a request came to.
struct ComputeChoice {
  std::optional<int> cuda_device;                           ///< the GPU; none: the CPU
  config::BackendName backend = config::BackendName::kCpu;  ///< on the CPU; never kAuto
  Precision precision = kF32Precision;
  int threads = 1;
  bool deterministic = true;  ///< false: on a GPU, sums whose order is chance may be used, and algorithms be measured
  /// "cpu, bf16, 2 threads", "GPU 0, bf16" or "GPU 0, bf16, not deterministic": for a line of output.
  [[nodiscard]] std::string text() const;
};

/// device auto: a GPU if the build and the machine have one and no CPU backend is named; gpu_choice.h says which. dtype
/// auto: bf16 on a GPU, and where the CPU multiplies it natively and the backend is cpu; else f32. threads 0:
/// share_of_cores(). Collective over `comm`. Throws UsageError for a device that this build or machine does not have,
/// for ranks and GPUs that do not match, and for bf16 where the CPU has no instructions for it.
ComputeChoice choose_compute(const ComputeRequest& request, Communicator& comm);

/// Cores for this rank: those that it may run on (affinity mask, container quota), each divided among the ranks of this
/// host that may run there too; at least 1. Collective.
int share_of_cores(Communicator& comm);

/// LOMU_SHARE_GPU=1: for tests, several ranks may use one GPU.
bool gpus_are_shared();

Backend open_backend(const ComputeChoice& choice);

}  // namespace lomu

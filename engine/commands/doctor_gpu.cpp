#include <fmt/format.h>

#include "engine/commands/doctor_findings.h"
#include "engine/session/speed.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_facts.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr double kSeconds = 0.2;
constexpr std::int64_t kBf16Size = 8192;  // large enough for the full rate of any GPU: 1.1 T operations
constexpr std::int64_t kF32Size = 4096;
constexpr std::size_t kCopyBytes = std::size_t{1} << 30;
constexpr const char* kHowToBuild =
    "cmake --preset cuda && cmake --build build, with nvcc 13 on PATH or CUDACXX set to it";

Finding nccl(bool cuda) {
  if (LOMU_HAS_NCCL) return {"NCCL", Verdict::kOk, "in this build"};
  return {"NCCL", Verdict::kMissing, "not in this build",
          cuda ? "needed for several GPUs to be fast: install libnccl-dev and build again" : ""};
}

Finding cudnn(const cuda::DeviceFacts& facts) {
  const auto version = [](std::size_t v) { return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100); };
  if (facts.cudnn_built == 0) {
    return {"cuDNN", Verdict::kMissing, "not in this build: attention by Lomu's own kernels",
            "install cuDNN 9 and pip's nvidia-cudnn-frontend, and build again (docs/gpu.md)"};
  }
  if (facts.cudnn_refusal.empty()) return {"cuDNN", Verdict::kOk, version(facts.cudnn)};
  return {
      "cuDNN", Verdict::kMissing,
      fmt::format("{}, built for {}: attention by Lomu's own kernels", facts.cudnn_refusal, version(facts.cudnn_built)),
      "put the folder of libcudnn.so.9 on LD_LIBRARY_PATH"};
}

Finding driver(const cuda::DeviceFacts& facts) {
  if (facts.driver == 0) {
    return {"driver", Verdict::kMissing, "none is loaded",
            "install the NVIDIA driver; in a container, start it with the GPUs (--gpus all)"};
  }
  const std::string text = fmt::format("serves CUDA {}", cuda::cuda_version_text(facts.driver));
  if (facts.driver / 1000 < facts.runtime / 1000) {
    return {"driver", Verdict::kBroken,
            fmt::format("{}, this build runs with {}", text, cuda::cuda_version_text(facts.runtime)),
            "update the driver, or build with an older toolkit"};
  }
  if (facts.gpus.empty()) {
    return {"driver", Verdict::kWarning, fmt::format("{}, but: {}", text, facts.refusal),
            "look at nvidia-smi and CUDA_VISIBLE_DEVICES"};
  }
  return {"driver", Verdict::kOk, text};
}

Finding gpu(const std::string& name, const cuda::GpuFacts& facts, const std::string& architectures) {
  const double bus_rate = 2e6 * facts.memory_clock_mhz * facts.bus_bits / 8;  // two transfers a clock
  std::string text =
      fmt::format("{}, capability {}.{}, {} ({} free), {} multiprocessors", facts.name, facts.major, facts.minor,
                  human_bytes(facts.memory_bytes), human_bytes(facts.memory_free_bytes), facts.multiprocessors);
  if (facts.clock_mhz > 0) text += fmt::format(" at {} MHz", facts.clock_mhz);
  if (bus_rate > 0) text += fmt::format(", memory {}/s", human_bytes(static_cast<std::uint64_t>(bus_rate)));
  const auto memory = static_cast<double>(facts.memory_bytes);
  if (!facts.suits) {
    return {name, Verdict::kBroken, fmt::format("{}; built for {}", text, architectures),
            facts.major < 8 ? "8.0 (A100) or newer is needed: use device cpu"
                            : fmt::format("build with -DCMAKE_CUDA_ARCHITECTURES={}{}", facts.major, facts.minor),
            memory};
  }
  if (facts.memory_free_bytes < facts.memory_bytes / 2) {
    return {name, Verdict::kWarning, text, "somebody else uses its memory: see nvidia-smi", memory};
  }
  return {name, Verdict::kOk, text, {}, memory};
}

Finding product(const std::string& name, const Precision& precision, std::int64_t size, int index) {
  const Backend backend = cuda::make_backend(precision, index);
  const ProductSpeed speed = product_speed(*backend.ops, *backend.memory, size, kSeconds);
  const std::string text = fmt::format("{:.1f} TFLOP/s", speed.rate * 1e-12);
  if (speed.error <= product_tolerance(precision.activation)) return {name, Verdict::kOk, text, {}, speed.rate};
  return {name, Verdict::kBroken, fmt::format("{}, but the result is wrong by {:.1e}", text, speed.error),
          "run launch/gpu-check and report what it says", speed.rate};
}

/// Whether it computes at all, and how fast.
void try_gpu(const std::string& name, int index, std::vector<Finding>& findings) {
  try {
    findings.push_back(product(name + " bf16 product", kBF16Precision, kBf16Size, index));
    findings.push_back(product(name + " f32 product", kF32Precision, kF32Size, index));
    const Backend backend = cuda::make_backend(kBF16Precision, index);
    const double rate = storage_copy_rate(*backend.memory, kCopyBytes, kSeconds);
    findings.push_back(
        {name + " copy", Verdict::kOk, fmt::format("{}/s", human_bytes(static_cast<std::uint64_t>(rate))), {}, rate});
  } catch (const Error& error) {
    findings.push_back({name + " use", Verdict::kBroken, error.what(), error.hint()});
  }
}

}  // namespace

Section examine_gpus(const Communicator& comm) {
  const cuda::DeviceFacts facts = cuda::device_facts();
  Section section{"gpu", {}};
  std::vector<Finding>& findings = section.findings;
  if (!facts.built) {
    findings.push_back({"CUDA", Verdict::kMissing, "not in this build", kHowToBuild});
    findings.push_back(nccl(false));
    return section;
  }
  findings.push_back({"CUDA", Verdict::kOk,
                      fmt::format("{}, cuBLASLt {}, kernels for {}", cuda::cuda_version_text(facts.toolkit),
                                  facts.cublaslt, facts.architectures)});
  findings.push_back(cudnn(facts));
  findings.push_back(nccl(true));
  findings.push_back(driver(facts));
  for (std::size_t i = 0; i < facts.gpus.size(); ++i) {
    const std::string name = fmt::format("GPU {}", i);
    findings.push_back(gpu(name, facts.gpus[i], facts.architectures));
    const bool of_this_rank = comm.local_size() == 1 || static_cast<std::size_t>(comm.local_rank()) == i;
    if (of_this_rank && facts.gpus[i].suits) try_gpu(name, static_cast<int>(i), findings);
  }
  if (!facts.gpus.empty() && static_cast<std::size_t>(comm.local_size()) > facts.gpus.size()) {
    findings.push_back({"ranks", Verdict::kWarning,
                        fmt::format("{} on this machine, which has {} GPU{}", comm.local_size(), facts.gpus.size(),
                                    facts.gpus.size() == 1 ? "" : "s"),
                        "start one rank for each GPU, or use device cpu"});
  }
  return section;
}

}  // namespace lomu

#include "engine/commands/compute_options.h"

#include <CLI/CLI.hpp>

#include "engine/commands/choice_option.h"

namespace lomu {

void declare(CLI::App& command, ComputeOptions& options) {
  using config::BackendName;
  using config::ComputeType;
  using config::DeviceName;
  constexpr const char* kGroup = "Where it is computed";
  add_choice<DeviceName>(command, "--device", options.device,
                         {{"auto", DeviceName::kAuto}, {"cpu", DeviceName::kCpu}, {"cuda", DeviceName::kCuda}},
                         "The processor [auto: a GPU if there is one]")
      ->group(kGroup);
  add_choice<BackendName>(
      command, "--backend", options.backend,
      {{"auto", BackendName::kAuto}, {"cpu", BackendName::kCpu}, {"reference", BackendName::kReference}},
      "The implementation [auto: the fast one of the device]")
      ->group(kGroup);
  add_choice<ComputeType>(command, "--dtype", options.dtype,
                          {{"auto", ComputeType::kAuto}, {"f32", ComputeType::kF32}, {"bf16", ComputeType::kBF16}},
                          "Type of weights and activations [auto: bf16 where it is fast, else f32]")
      ->group(kGroup);
  command.add_option("--threads", options.threads, "Threads [0: all cores]")
      ->check(CLI::Range(0, 4096))
      ->type_name("N")
      ->group(kGroup);
}

}  // namespace lomu

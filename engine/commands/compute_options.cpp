#include "engine/commands/compute_options.h"

#include <CLI/CLI.hpp>

#include "engine/commands/choice_option.h"

namespace lomu {

namespace {

constexpr const char* kGroup = "Where it is computed";

/// Device: DeviceName, or an optional one.
template <class Device>
void add_device(CLI::App& command, Device& device, const std::string& meaning) {
  using config::DeviceName;
  add_choice<Device>(command, "--device", device,
                     {{"auto", DeviceName::kAuto}, {"cpu", DeviceName::kCpu}, {"cuda", DeviceName::kCuda}}, meaning)
      ->group(kGroup);
}

}  // namespace

void declare_device(CLI::App& command, config::DeviceName& device, const std::string& meaning) {
  add_device(command, device, meaning);
}
void declare_device(CLI::App& command, std::optional<config::DeviceName>& device, const std::string& meaning) {
  add_device(command, device, meaning);
}

void declare(CLI::App& command, ComputeOptions& options) {
  using config::BackendName;
  using config::ComputeType;
  declare_device(command, options.device, "The processor [auto: a GPU if there is one]");
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

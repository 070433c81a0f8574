// The backends that a test of the whole decoder runs on, each with what it stands on; the CUDA one in emulation.
#pragma once

#include <memory>
#include <ostream>
#include <string>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/ops.h"

namespace lomu::test {

/// A backend ("reference", "cpu", "cuda") and what it computes in.
struct Place {
  std::string backend;
  Precision precision;

  [[nodiscard]] bool works_here() const {
    return backend != "cpu" || precision != kBF16Precision || cpu_has_fast_bf16();
  }
  /// "cuda_bf16"
  [[nodiscard]] std::string text() const { return backend + "_" + std::string(name_of(precision.activation)); }
  friend void PrintTo(const Place& place, std::ostream* out) { *out << place.text(); }
};

struct Computer {
  std::unique_ptr<cuda::Device> device;
  std::unique_ptr<Memory> memory;
  std::unique_ptr<Ops> ops;
};

inline Computer make_computer(const Place& place) {
  Computer c;
  if (place.backend == "cuda") c.device = cuda::make_emulated_device();
  c.memory = c.device ? std::make_unique<Memory>(c.device->storage()) : std::make_unique<Memory>();
  if (place.backend == "reference") c.ops = make_reference_ops(place.precision);
  if (place.backend == "cpu") c.ops = make_cpu_ops(place.precision, 2, *c.memory);
  if (place.backend == "cuda") c.ops = cuda::make_cuda_ops(place.precision, *c.device, *c.memory);
  return c;
}

}  // namespace lomu::test

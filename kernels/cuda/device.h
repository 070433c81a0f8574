// One device as a backend uses it: its memory as a Storage, its stream, its libraries. Two kinds: a CUDA device, and
// the emulated one, whose memory is this process's but which claims to be elsewhere, so that tests take the paths that
// a device takes.
#pragma once

#include <memory>

#include "kernels/cuda/attention_graphs.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/stream_recorder.h"
#include "kernels/memory.h"
#include "kernels/storage.h"

namespace lomu::cuda {

class Device {
 public:
  virtual ~Device() = default;
  [[nodiscard]] virtual Storage& storage() = 0;
  [[nodiscard]] virtual Stream stream() const = 0;
  /// Whether float64 runs at half the rate of float32 (compute capability 8.0, 9.0, 10.0), not at 1/32 or 1/64.
  [[nodiscard]] virtual bool fast_float64() const = 0;
  [[nodiscard]] virtual std::unique_ptr<MatrixProducts> make_products(Memory& memory) = 0;
  /// Of stream(); null: its work cannot be recorded.
  [[nodiscard]] virtual std::unique_ptr<StreamRecorder> make_recorder() { return nullptr; }
  /// A library's attention on stream(); null where there is none.
  [[nodiscard]] virtual std::unique_ptr<AttentionGraphs> make_attention_graphs() { return nullptr; }
};

std::unique_ptr<Device> make_emulated_device();

/// Device `index` of this process. Throws Error: no driver, no such device, or one older than this build's kernels.
/// Only in builds with CUDA.
std::unique_ptr<Device> make_cuda_device(int index, const ProductOptions& products = {});

}  // namespace lomu::cuda

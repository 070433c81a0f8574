// The CUDA backend behind kernels/ops.h. All tensors, packed weights and factors lie in the device's storage.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/device.h"
#include "kernels/ops.h"

namespace lomu::cuda {

/// How adapted linear layers are computed (cuda_linear.h).
enum class LinearPath : std::uint8_t {
  kAugmented,  ///< base and adapters in one product, wherever the caller gives room (Ops::spare_columns)
  kPlain,      ///< every product by itself: spare_columns() is 0. The check of the other
};

/// `device` and `memory` outlive the operations; `memory` is made on device.storage(). Throws UsageError for a
/// precision other than bf16 and f32.
std::unique_ptr<Ops> make_cuda_ops(const Precision& precision, Device& device, Memory& memory,
                                   LinearPath path = LinearPath::kAugmented);

}  // namespace lomu::cuda

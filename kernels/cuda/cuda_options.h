// What may be chosen about the CUDA backend beyond its precision and device.
#pragma once

#include <cstdint>

namespace lomu::cuda {

enum class AttentionChoice : std::uint8_t {
  kAuto,     ///< the library's graphs where they can do it, else Lomu's own kernels
  kOwn,      ///< Lomu's own kernels
  kLibrary,  ///< the library's graphs; what they cannot do is an UnsupportedError. For measurements and comparisons.
};

/// How adapted linear layers are computed (cuda_linear.h).
enum class LinearPath : std::uint8_t {
  kAugmented,  ///< base and adapters in one product, wherever the caller gives room (Ops::spare_columns)
  kPlain,      ///< every product by itself: spare_columns() is 0. The check of the other
};

struct CudaOptions {
  /// The same bits in every run. False may be faster: sums in an order that chance decides are then allowed, and
  /// algorithms of matrix products are chosen by measuring (ProductOptions::timed).
  bool deterministic = true;
  AttentionChoice attention = AttentionChoice::kAuto;
  LinearPath linear = LinearPath::kAugmented;
  bool recordings = true;  ///< micro-batches of a shape that comes back are replayed (step_recordings.h)
};

}  // namespace lomu::cuda

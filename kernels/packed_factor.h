// Where the bfloat16 copy of an adapter factor lies that products read, for whoever changes the factor and writes the
// copy in the same breath. A description of memory; what else lies around the copy is the backend's affair.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace lomu {

/// bf16(multiplier * factor), line by line. The lines of a left factor [m, r] are its m rows, those of a right one
/// [r, n] its r rows.
struct PackedFactor {
  BF16* data = nullptr;          ///< nullptr: no copy
  std::int64_t line_stride = 0;  ///< elements from a line to the next; at least the line's length
  float multiplier = 1.0f;
};

/// Of one pair.
struct PackedPair {
  PackedFactor left, right;
};

}  // namespace lomu

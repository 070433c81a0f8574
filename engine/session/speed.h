// What a machine does at best, measured in a fraction of a second: how fast it moves bytes and how fast a backend
// multiplies. For `lomu doctor` and for reports that hold a speed against it. Not a benchmark: run those on an idle
// machine, and longer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"

namespace lomu {

/// Bytes a second, read and written ones together, of `threads` threads that copy `bytes` of this process's memory
/// from one place to another; the best of the repetitions that `seconds` allow, at least one. Choose `bytes` beyond
/// the caches.
double host_copy_rate(Memory& memory, std::size_t bytes, int threads, double seconds);

/// The same within the storage of a backend, by its own copy.
double storage_copy_rate(Memory& memory, std::size_t bytes, double seconds);

struct ProductSpeed {
  double rate = 0;   ///< operations a second: 2 size^3 a product, the best repetition
  double error = 0;  ///< the largest of some elements of the result, beside sums in double: relative in norm
};

/// Products y = x W^T of `size` x `size` matrices by Ops::linear_forward, frozen weights and no adapter; the best of
/// the repetitions that `seconds` allow. The result is looked at: a device that computes something else is found here.
ProductSpeed product_speed(const Ops& ops, Memory& memory, std::int64_t size, double seconds);

/// Largest error of a right result: what one rounding of the activation type and the order of sums bring.
double product_tolerance(DType activation);

}  // namespace lomu

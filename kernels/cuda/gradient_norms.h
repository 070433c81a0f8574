// The squared norms of all gradients of a rank in one launch: what clipping needs before either optimizer steps. Sums
// in double and in a fixed order, so bitwise repeatable; it reads 4 bytes a parameter and is bound by that.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/cuda/adapter_pairs.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// Owns no device memory. Made once per run, for fixed addresses.
class GradientNorms {
 public:
  explicit GradientNorms(std::span<const PairDesc> pairs);

  /// To be copied to the device once, 16-byte aligned there.
  [[nodiscard]] std::span<const std::byte> table() const { return table_; }
  /// On the device, 16-byte aligned, all zero before the first use.
  [[nodiscard]] std::size_t workspace_bytes() const { return workspace_bytes_; }

  /// Enqueues norms[i] = ||dP||^2 + ||dQ||^2 of pair i, and norms[pairs] = their sum in that order. norms: on the
  /// device. A NaN or infinity shows in its pair's norm. Without pairs nothing is written.
  void run(const std::byte* table, std::byte* workspace, double* norms, Stream stream) const;

 private:
  std::vector<std::byte> table_;
  std::size_t pairs_ = 0, tiles_ = 0, tiles_offset_ = 0, workspace_bytes_ = 0;
};

}  // namespace lomu::cuda

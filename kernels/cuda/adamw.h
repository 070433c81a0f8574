// AdamW on the device: one launch steps every entry of all pairs of factors, clips, writes the bf16 copies and reports.
// The same step as engine/optimizers/adamw.h. Owns no memory, never waits for the device, and is bitwise repeatable.
//
// Bound: memory. 28 bytes a parameter (factor and two moments in and out, the gradient in) and 2 of copy: for
// Llama-3-8B at an H200's 4.8 TB/s 0.26 ms at rank 16 (42 M parameters) and 1.05 ms at rank 64 (arithmetic, not
// measured). Its arithmetic in double, a square root and two divisions, is about 60 operations a parameter, a third of
// what the device does in that time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/adapter_pairs.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

struct AdamwOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double max_grad_norm = 0.0;                ///< 0: no clipping
  Precision precision = Precision::kDouble;  ///< kTwoFloat: in single float32, as PyTorch's
};

/// What changes from step to step; lies on the device.
struct AdamwStep {
  double lr = 0.0;
  double correction1 = 1.0;       ///< 1 - beta1^t
  double correction2_root = 1.0;  ///< sqrt(1 - beta2^t)
};

/// The numbers of step t = 1, 2, ... UsageError for an earlier one.
AdamwStep adamw_step(const AdamwOptions& options, double lr, std::int64_t t);

/// What a step did to one factor. A factor that was not finite shows as such a norm.
struct AdamwHalfReport {
  double step_norm_squared = 0.0;    ///< without weight decay
  double factor_norm_squared = 0.0;  ///< before the step
};

/// UsageError: what check_pairs refuses, and options out of range.
void check_adamw(std::span<const PairDesc> pairs, const AdamwOptions& options);

class AdamwPlan {
 public:
  /// Made once per run, for fixed addresses. Throws what check_adamw throws.
  AdamwPlan(std::span<const PairDesc> pairs, const AdamwOptions& options);

  /// To be copied to the device once, 16-byte aligned there.
  [[nodiscard]] std::span<const std::byte> table() const { return table_; }
  /// On the device, 16-byte aligned, all zero before the first use.
  [[nodiscard]] std::size_t workspace_bytes() const { return workspace_bytes_; }
  /// Where in the workspace the reports of the last step lie: left and right of each pair in turn.
  [[nodiscard]] std::size_t reports_offset() const { return reports_offset_; }
  [[nodiscard]] std::size_t report_count() const { return halves_; }

  /// Enqueues a step. step: on the device. grad_norm_squared: on the device, the square of the norm of all gradients of
  /// all ranks (gradient_norms.h). It is needed with or without clipping: when it is not finite, nothing changes and
  /// the step norms reported are NaN.
  void step(const std::byte* table, std::byte* workspace, const AdamwStep* step, const double* grad_norm_squared,
            Stream stream) const;

 private:
  AdamwOptions options_;
  std::vector<std::byte> table_;
  std::size_t halves_ = 0, tiles_ = 0, tiles_offset_ = 0;
  std::size_t reports_offset_ = 0, sums_offset_ = 0, workspace_bytes_ = 0;
};

}  // namespace lomu::cuda

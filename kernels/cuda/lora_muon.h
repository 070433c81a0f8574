// LoRA-Muon on the device: one step of all pairs of factors, of any mixture of ranks up to 256, in three launches. The
// same step as engine/optimizers/lora_muon.h, which docs/lora_muon.md explains; this is how it is cut for a GPU:
//
//   1 grams     momentum and the Grams of factor and direction, each tile of rows into a slot of its own
//   2 spectral  a block for each factor: sums the slots in order, r x r work: K = F D^(-1/2) F^T, and the report
//   3 apply     factor <- q factor - (eta / 2 s q) direction K; momentum; the bf16 copy
//   (4) balance now and then: a block for each pair. Not part of the others: it goes by the factors after the step, of
//       which launch 1 knows nothing, and once in a hundred steps it costs less than reading for it each time would
//
// No sum depends on the order in which blocks run and no float is added atomically: the same input gives the same bits,
// alone or in any company. It owns no memory, moves nothing between host and device, and never waits for the device.
//
// Bytes for each parameter: 1 reads factor, momentum and gradient (12), 3 reads them again and writes factor, momentum
// and 2 bytes of copy (22): 34, and the slots, 1 % at rank 16 and 3 % at rank 64. A momentum that is rounded before
// use, which would save 4 of them, costs exactness, and so does a momentum written before all gradients are known to be
// finite. For Llama-3-8B, all linear layers, at an H200's 4.8 TB/s: rank 16 (42 M parameters) 1.43 GB, 0.30 ms; rank 64
// (168 M) 5.9 GB, 1.2 ms (arithmetic, not measured). Double multiply-adds: about 2 r^2 a row; 21 GMA at rank 64, 0.65
// ms at 67 TFLOP/s. Launch 2 is bound by latency, not by either: some 6 sweeps of r - 1 rounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/adapter_pairs.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

struct LoraMuonOptions {
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0.0;
  double max_grad_norm = 0.0;           ///< 0: no clipping
  std::optional<double> damping = 0.1;  ///< rho, where the partner started at zero; empty: off
  bool newton_schulz = false;           ///< the paper's recursions instead of the exact step
  Precision precision = Precision::kDouble;
};

/// What changes from step to step; lies on the device.
struct LoraMuonStep {
  double lr = 0.0;
};

/// Why a half could not be stepped.
enum class LoraMuonStatus : std::int32_t {
  kDone,
  kFactorNotFinite,
  kGradientNotFinite,  ///< or the momentum, or the norm it is clipped by
  kPartnerZero,        ///< and not damped: the step has no metric
  kMetricNotPositive,  ///< the metric has no Cholesky factor, however shifted
  kNotConverged,       ///< the eigenvalues of the whitened momentum
};

/// What a step did to one factor. If any status is not kDone, no factor and no momentum has changed.
struct LoraMuonHalfReport {
  double grad_norm_squared = 0.0;  ///< before clipping
  double step_norm_squared = 0.0;  ///< without weight decay
  double factor_norm_squared = 0.0;
  std::int32_t cholesky_raises = 0;
  LoraMuonStatus status = LoraMuonStatus::kDone;
};

/// UsageError: what check_pairs refuses; a rank above min(m, n); a factor that starts at zero without damping, and
/// pairs of which both do; options out of range.
void check_lora_muon(std::span<const PairDesc> pairs, const LoraMuonOptions& options);

template <class Real>
struct Workspace;  // lora_muon_tables.h

/// Cuts the step of some pairs into tiles and says what memory it takes. Made once per run, for fixed addresses.
class LoraMuonPlan {
 public:
  /// Throws what check_lora_muon throws.
  LoraMuonPlan(std::span<const PairDesc> pairs, const LoraMuonOptions& options);

  /// To be copied to the device once, 16-byte aligned there.
  [[nodiscard]] std::span<const std::byte> table() const { return table_; }
  /// Scratch on the device, 16-byte aligned; nothing in it but the reports outlives a step.
  [[nodiscard]] std::size_t workspace_bytes() const { return workspace_bytes_; }
  /// Where in the workspace the reports of the last step lie: left and right of each pair in turn.
  [[nodiscard]] std::size_t reports_offset() const { return 0; }
  [[nodiscard]] std::size_t report_count() const { return 2 * pairs_; }

  /// Enqueues a step. table, workspace: on the device. step: on the device, read when the kernels run.
  /// grad_norm_squared: on the device, the square of the norm of all gradients of all ranks; needed if max_grad_norm
  /// is set (gradient_norms.h). Nothing changes when it is not finite.
  void step(const std::byte* table, std::byte* workspace, const LoraMuonStep* step, const double* grad_norm_squared,
            Stream stream) const;

  /// Enqueues a gauge balance of the factors as they are after a step, as engine/optimizers/gauge_balance.h: by a power
  /// of two, so that no bit of the product changes. Does nothing after a step that failed.
  void balance(const std::byte* table, std::byte* workspace, Stream stream) const;

 private:
  template <class Real>
  [[nodiscard]] Workspace<Real> space(const std::byte* table, std::byte* workspace) const;
  template <class Real>
  void step_in(const Workspace<Real>& space, const LoraMuonStep* step, const double* grad_norm_squared,
               Stream stream) const;

  LoraMuonOptions options_;
  std::vector<std::byte> table_;
  std::size_t pairs_ = 0;
  std::size_t gram_tiles_ = 0, gram_tiles_offset_ = 0;
  std::size_t row_tiles_ = 0, row_tiles_offset_ = 0;
  std::size_t failures_offset_ = 0, numbers_offset_ = 0;
  std::size_t workspace_bytes_ = 0;
  int largest_rank_ = 0;
};

}  // namespace lomu::cuda

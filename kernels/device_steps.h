// What a training step does with gradients and factors where a backend on a device keeps them: adds gradients, measures
// them, and steps the factors. The counterpart of engine/optimizers, which does the same in host memory; which pairs a
// rank steps and what ranks say to each other is the engine's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/cuda/stream.h"
#include "kernels/memory.h"
#include "kernels/packed_factor.h"

namespace lomu {

/// One pair of factors of W = W0 + scale P Q^T in PEFT's layout, all arrays on the device, dense and float32. left is
/// P [m, r], right is Q^T [r, n].
struct DevicePair {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t r = 0;
  double scale = 1.0;
  double step_multiplier = 1.0;  ///< of the learning rate (LoRA-Muon)
  bool left_started_zero = false;
  bool right_started_zero = false;
  float* left = nullptr;
  float* right = nullptr;
  const float* grad_left = nullptr;
  const float* grad_right = nullptr;
  float* state = nullptr;  ///< slots one after the other, as the host's optimizer of the same name has them
  PackedPair packed;       ///< copies that a step writes with the factors; those without data are not
};

struct DeviceOptimizerOptions {
  enum class Name : std::uint8_t { kLoraMuon, kAdamW } name = Name::kLoraMuon;
  double weight_decay = 0.0;
  double max_grad_norm = 0.0;  ///< 0: no clipping
  // LoRA-Muon
  double momentum = 0.9;
  bool nesterov = false;
  std::optional<double> damping = 0.1;
  bool newton_schulz = false;
  // AdamW
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
};

/// What a step did to one pair.
struct DevicePairReport {
  double step_norm_squared_left = 0.0;  ///< without weight decay
  double step_norm_squared_right = 0.0;
  double factor_norm_squared_left = 0.0;  ///< before the step
  double factor_norm_squared_right = 0.0;
  int cholesky_raises = 0;
  std::string_view
      failure;  ///< why the pair could not be stepped; empty: it was. Nothing has changed where one failed.
};

/// Steps some pairs together, in a few launches. Deterministic: the same input gives the same bits, in any company.
class DeviceOptimizer {
 public:
  virtual ~DeviceOptimizer() = default;
  /// Squared norm of each pair's gradients, in pair order. Waits for what was queued before.
  virtual std::vector<double> gradient_norms_squared() = 0;
  /// Queues step number `step` (from 1). grad_norm_squared: of all pairs of all ranks, finite.
  virtual void step(std::int64_t step, double lr, double grad_norm_squared) = 0;
  /// Queues a gauge balance, as engine/optimizers/gauge_balance.h; nothing for AdamW.
  virtual void balance() = 0;
  /// Of the last step; waits for it.
  virtual std::vector<DevicePairReport> reports() = 0;
};

class DeviceSteps {
 public:
  virtual ~DeviceSteps() = default;
  /// The stream on which everything here and all operations of the backend are queued.
  [[nodiscard]] virtual cuda::Stream stream() const = 0;
  /// Queues into[i] += from[i], one float32 addition each.
  virtual void add(float* into, const float* from, std::size_t count) = 0;
  /// Queues to[i] = from[i].
  virtual void copy(float* to, const float* from, std::size_t count) = 0;
  /// The pairs' addresses stay as they are while the optimizer lives; `memory` is the backend's and outlives it.
  /// Throws UsageError naming what cannot be stepped so.
  virtual std::unique_ptr<DeviceOptimizer> make_optimizer(std::span<const DevicePair> pairs,
                                                          const DeviceOptimizerOptions& options, Memory& memory) = 0;
};

}  // namespace lomu

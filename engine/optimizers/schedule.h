// Learning rate as a function of the step: pure, so that a resumed run and every rank agree without keeping state.
#pragma once

#include <cstdint>

namespace lomu {

enum class ScheduleKind : std::uint8_t { kConstant, kLinear, kCosine, kWarmupStableDecay };

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kLinear;
  std::int64_t warmup_steps = 0;
  double warmup_ratio = 0.0;  ///< of all steps; used when warmup_steps is 0
  double decay_ratio = 0.2;   ///< share of all steps in the final decay of warmup-stable-decay
  double min_lr_ratio = 0.0;  ///< of the peak: what the decay goes down to
};

/// Refuses options that make no schedule (UsageError names the option).
void check_schedule(const ScheduleOptions& options);

/// Learning rate of step `step` of `total`; steps count from 1, a step beyond `total` gets the value at the end.
///   warmup     step / W of the peak for the first W steps; the W-th has the peak
///   after it   peak (min + (1 - min) shape(p)), p = (step - 1 - W) / (total - W) in [0, 1): like the schedules of
///   Hugging
///              Face, the first step after warmup has the peak and the last is one step short of the end of the decay
///   shape      constant: 1; linear: 1 - p; cosine: (1 + cos(pi p)) / 2; warmup-stable-decay: 1, then linear over the
///   last
///              decay_ratio total steps
double learning_rate(const ScheduleOptions& options, double peak, std::int64_t step, std::int64_t total);

}  // namespace lomu

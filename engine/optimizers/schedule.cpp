#include "engine/optimizers/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "kernels/error.h"

namespace lomu {
namespace {

void require_share(double value, const char* key) {
  if (value >= 0.0 && value <= 1.0) return;
  throw UsageError(fmt::format("{} = {:g} is out of range", key, value), fmt::format("schedule.{}", key),
                   "it must be from 0 to 1");
}

std::int64_t steps_of(double ratio, std::int64_t total) {
  return static_cast<std::int64_t>(std::ceil(ratio * static_cast<double>(total)));
}

/// How far the run is into the decay that starts after `start` steps: 0 at its first step, under 1 at the last of the
/// run.
double progress(std::int64_t step, std::int64_t start, std::int64_t total) {
  if (step <= start || total <= start) return 0.0;
  return std::min(1.0, static_cast<double>(step - 1 - start) / static_cast<double>(total - start));
}

}  // namespace

void check_schedule(const ScheduleOptions& options) {
  if (options.warmup_steps < 0) {
    throw UsageError(fmt::format("warmup_steps = {} is negative", options.warmup_steps), "schedule.warmup_steps");
  }
  require_share(options.warmup_ratio, "warmup_ratio");
  require_share(options.decay_ratio, "decay_ratio");
  require_share(options.min_lr_ratio, "min_lr_ratio");
}

double learning_rate(const ScheduleOptions& options, double peak, std::int64_t step, std::int64_t total) {
  const std::int64_t warmup = options.warmup_steps > 0 ? options.warmup_steps : steps_of(options.warmup_ratio, total);
  if (step <= warmup) return peak * static_cast<double>(std::max<std::int64_t>(step, 0)) / static_cast<double>(warmup);
  const auto decayed = [&](double shape) {
    return peak * (options.min_lr_ratio + (1.0 - options.min_lr_ratio) * shape);
  };
  switch (options.kind) {
    case ScheduleKind::kConstant: return peak;
    case ScheduleKind::kLinear: return decayed(1.0 - progress(step, warmup, total));
    case ScheduleKind::kCosine:
      return decayed(0.5 * (1.0 + std::cos(std::numbers::pi * progress(step, warmup, total))));
    case ScheduleKind::kWarmupStableDecay: {
      const std::int64_t stable_end = std::max(warmup, total - steps_of(options.decay_ratio, total));
      return decayed(1.0 - progress(step, stable_end, total));
    }
  }
  return peak;
}

}  // namespace lomu

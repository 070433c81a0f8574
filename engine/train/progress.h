// What a run shows while it goes: one line that is redrawn on a terminal, plain lines now and then elsewhere. Standard
// error, rank 0 only.
#pragma once

#include <chrono>
#include <cstdint>

#include "engine/train/metrics.h"

namespace lomu {

class Progress {
 public:
  Progress(std::int64_t first_step, std::int64_t total_steps);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(const StepMetrics& metrics);
  /// Ends the redrawn line, so that other text can follow.
  void pause();

 private:
  using Clock = std::chrono::steady_clock;
  std::int64_t first_step_;
  std::int64_t total_steps_;
  bool terminal_;
  bool open_line_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_shown_{};
};

}  // namespace lomu

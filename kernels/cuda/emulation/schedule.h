// In which order emulated threads run. For tests: a kernel that is right only in some orders is wrong. Needs nothing of
// CUDA, so that a test can include it beside the host headers of the kernels.
#pragma once

namespace lomu::emu {

/// 0: threads in order. 1: in reverse. Above: a new random order at every pass (even), or random priorities that stay
/// for a block's life (odd), which is the only kind that lets one warp run far ahead. The same seed is the same
/// schedule on every machine.
class ScheduleScope {
 public:
  /// Holds for all launches of the process until the scope ends.
  explicit ScheduleScope(unsigned seed);
  ~ScheduleScope();
  ScheduleScope(const ScheduleScope&) = delete;
  ScheduleScope& operator=(const ScheduleScope&) = delete;

 private:
  unsigned before_;
};

/// How many schedules a test should try: LOMU_EMULATION_SCHEDULES if the environment has it; else 4, one of each kind,
/// or 1 under a sanitizer, which finds faults by what is ordered and not by what happens.
unsigned schedules_to_try();

/// Calls body(seed) under each schedule.
template <class Body>
void for_each_schedule(Body body) {
  for (unsigned seed = 0; seed < schedules_to_try(); ++seed) {
    const ScheduleScope scope(seed);
    body(seed);
  }
}

/// Changes of thread so far in this process; a measure of an emulated launch's cost.
long switch_count();

}  // namespace lomu::emu

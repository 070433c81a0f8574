// Runs what of a study is not done yet, several at a time, and keeps each result as it comes.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/study/study_record.h"
#include "engine/study/study_runs.h"

namespace lomu {

/// Called when a run is done, or was found done; `seconds`: since this process began.
using RunDone = std::function<void(const StudyRecord& record, bool was_done, std::size_t done, double seconds)>;

/// Called about once a second with the runs that are under way.
using RunsUnderWay = std::function<void(std::span<const StudyRun* const> runs)>;

/// How many runs at a time, and how many threads each of them has.
struct RunsAtOnce {
  int runs = 1;
  int threads = 1;
};

/// Runs those of `runs` whose index is `first` modulo `stride`. A run that fails is a record like
/// any other. Returns false when an interrupt ended it: what has finished is kept, and the next call goes on from
/// there. Throws Error and FileError when runs cannot be started or kept.
bool run_all(std::span<const StudyRun> runs, std::size_t first, std::size_t stride, RunsAtOnce at_once,
             const RunDone& done, const RunsUnderWay& under_way);

}  // namespace lomu

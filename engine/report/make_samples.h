// Asks the models of runs for samples: greedily, the base model alone and then what the run has made of it. The only
// part of a report that computes; what cannot be had is told in the samples and stops nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/report/run_history.h"
#include "engine/report/samples.h"
#include "engine/session/compute.h"

namespace lomu {

struct SampleOptions {
  std::int64_t count = 5;    ///< records of each run
  std::int64_t tokens = 64;  ///< of each answer
  ComputeRequest compute;
};

/// Of each run. One model is open at a time; runs of the same base share its answers to the same prompts. `progress` is
/// told what is asked next. An Error becomes a MissingSample; others are thrown.
std::vector<RunSamples> make_samples(std::span<const RunHistory> runs, const SampleOptions& options,
                                     const std::function<void(const std::string&)>& progress);

}  // namespace lomu

// The page of one or several runs: one HTML file with their losses, rates and norms, what telemetry saw, what they came
// to, where their configurations differ, and texts that their models wrote. No network, no script.
#pragma once

#include <span>
#include <string>

#include "engine/report/run_history.h"
#include "engine/report/samples.h"

namespace lomu {

/// At least one run. `provenance`: for the foot of the page. `samples`: of each run, or empty.
std::string page_of_runs(std::span<const RunHistory> runs, const std::string& provenance,
                         std::span<const RunSamples> samples = {});

}  // namespace lomu

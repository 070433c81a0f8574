// The page of one or several runs: one HTML file with their losses, rates and norms, what telemetry saw, what they came
// to and where their configurations differ. No network, no script.
#pragma once

#include <span>
#include <string>

#include "engine/report/run_history.h"

namespace lomu {

/// At least one run. `provenance`: for the foot of the page.
std::string page_of_runs(std::span<const RunHistory> runs, const std::string& provenance);

}  // namespace lomu

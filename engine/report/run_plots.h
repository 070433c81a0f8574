// The pictures of a page of runs: what became of a number step by step, and of telemetry over steps and layers.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/report/run_history.h"

namespace lomu {

/// A plot of metrics.jsonl's `key` with a line a run, named by `names`; empty text where no run has it. Long runs are
/// shown in groups of steps: the line is their mean, the band what lies between the least and the largest.
std::string plot_of_metric(std::span<const RunHistory> runs, std::span<const std::string> names,
                           const std::string& title, const std::string& key);

/// Likewise a figure of telemetry: median over the pairs, band from the 10 % to the 90 % quantile.
std::string plot_of_figure(std::span<const RunHistory> runs, std::span<const std::string> names,
                           const std::string& title, const std::string& figure);

/// A figure of one run over layers and steps, median over the pairs of a layer; empty text where the run has none.
std::string heat_map_of_figure(const RunHistory& run, const std::string& title, const std::string& figure,
                               bool logarithmic);

}  // namespace lomu

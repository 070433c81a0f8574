// What telemetry said of the pairs of a run, small enough to be kept with its result: medians over the pairs of a
// layer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/report/run_history.h"

namespace lomu {

struct LayerFigures {
  std::int64_t step = 0;
  int layer = 0;
  std::map<std::string, double> figures;  ///< by their names in metrics.jsonl; those that any pair of the layer has
};

/// By step, then layer; empty for a run without telemetry.
std::vector<LayerFigures> layer_figures_of(const RunHistory& run);

/// A JSON array. Three digits of a figure are kept.
std::string to_json(std::span<const LayerFigures> layers);
/// Nothing for what to_json does not write.
std::optional<std::vector<LayerFigures>> layer_figures_from(const std::string& json);

/// The middle one, of an even number the mean of the two. values: at least one.
double median_of(std::vector<double> values);

}  // namespace lomu

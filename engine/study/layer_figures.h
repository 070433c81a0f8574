// The spectra of momentum and product of a run, small enough to be kept with its result: what telemetry said of each
// pair, as medians over the pairs of a layer.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/report/run_history.h"

namespace lomu {

/// The figures that are kept (engine/optimizers/pair_figures.h).
inline constexpr std::array<const char*, 15> kSpectrumFigures = {"momentum_left_smallest",
                                                                 "momentum_left_q10",
                                                                 "momentum_left_median",
                                                                 "momentum_left_q90",
                                                                 "momentum_left_largest",
                                                                 "momentum_right_smallest",
                                                                 "momentum_right_q10",
                                                                 "momentum_right_median",
                                                                 "momentum_right_q90",
                                                                 "momentum_right_largest",
                                                                 "missed_left",
                                                                 "missed_right",
                                                                 "product_largest",
                                                                 "norm_left",
                                                                 "norm_right"};

struct LayerSpectrum {
  std::int64_t step = 0;
  int layer = 0;
  std::map<std::string, double> figures;  ///< those that any pair of the layer has
};

/// By step, then layer; empty for a run without telemetry.
std::vector<LayerSpectrum> layer_spectra_of(const RunHistory& run);

/// A JSON array. Three digits of a figure are kept.
std::string to_json(std::span<const LayerSpectrum> spectra);
/// Nothing for what to_json does not write.
std::optional<std::vector<LayerSpectrum>> layer_spectra_from(const std::string& json);

/// The middle one, of an even number the mean of the two. values: at least one.
double median_of(std::vector<double> values);

}  // namespace lomu

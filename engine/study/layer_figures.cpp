#include "engine/study/layer_spectra.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace lomu {
namespace {

double rounded(double value) {
  return std::strtod(fmt::format("{:.3g}", value).c_str(), nullptr);
}

}  // namespace

std::vector<LayerSpectrum> layer_spectra_of(const RunHistory& run) {
  std::vector<LayerSpectrum> spectra;
  for (const HistoryStep& step : run.steps) {
    std::map<int, std::map<std::string, std::vector<double>>> layers;
    for (const HistoryPair& pair : step.pairs) {
      const auto layer = layer_of(pair.name);
      if (!layer) continue;
      for (const char* figure : kSpectrumFigures) {
        if (const auto found = pair.figures.find(figure); found != pair.figures.end()) {
          layers[*layer][figure].push_back(found->second);
        }
      }
    }
    for (auto& [layer, figures] : layers) {
      LayerSpectrum& spectrum = spectra.emplace_back(LayerSpectrum{step.step, layer, {}});
      for (auto& [figure, values] : figures) spectrum.figures[figure] = median_of(std::move(values));
    }
  }
  return spectra;
}

std::string to_json(std::span<const LayerSpectrum> spectra) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const LayerSpectrum& spectrum : spectra) {
    nlohmann::ordered_json entry = {{"step", spectrum.step}, {"layer", spectrum.layer}};
    for (const auto& [figure, value] : spectrum.figures) entry[figure] = rounded(value);
    list.push_back(std::move(entry));
  }
  return list.dump();
}

std::optional<std::vector<LayerSpectrum>> layer_spectra_from(const std::string& json) {
  std::vector<LayerSpectrum> spectra;
  try {
    for (const auto& entry : nlohmann::json::parse(json)) {
      LayerSpectrum& spectrum = spectra.emplace_back();
      spectrum.step = entry.at("step").get<std::int64_t>();
      spectrum.layer = entry.at("layer").get<int>();
      for (const char* figure : kSpectrumFigures) {
        if (entry.contains(figure)) spectrum.figures[figure] = entry[figure].get<double>();
      }
    }
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  return spectra;
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

}  // namespace lomu

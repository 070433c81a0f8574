#include "engine/study/layer_figures.h"

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

std::vector<LayerFigures> layer_figures_of(const RunHistory& run) {
  std::vector<LayerFigures> all;
  for (const HistoryStep& step : run.steps) {
    std::map<int, std::map<std::string, std::vector<double>>> layers;
    for (const HistoryPair& pair : step.pairs) {
      const auto layer = layer_of(pair.name);
      if (!layer) continue;
      for (const auto& [figure, value] : pair.figures) layers[*layer][figure].push_back(value);
    }
    for (auto& [layer, figures] : layers) {
      LayerFigures& medians = all.emplace_back(LayerFigures{step.step, layer, {}});
      for (auto& [figure, values] : figures) medians.figures[figure] = median_of(std::move(values));
    }
  }
  return all;
}

std::string to_json(std::span<const LayerFigures> layers) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const LayerFigures& layer : layers) {
    nlohmann::ordered_json entry = {{"step", layer.step}, {"layer", layer.layer}};
    for (const auto& [figure, value] : layer.figures) entry[figure] = rounded(value);
    list.push_back(std::move(entry));
  }
  return list.dump();
}

std::optional<std::vector<LayerFigures>> layer_figures_from(const std::string& json) {
  std::vector<LayerFigures> all;
  try {
    for (const auto& entry : nlohmann::json::parse(json)) {
      LayerFigures& layer = all.emplace_back();
      layer.step = entry.at("step").get<std::int64_t>();
      layer.layer = entry.at("layer").get<int>();
      for (const auto& [key, value] : entry.items()) {
        if (key != "step" && key != "layer") layer.figures[key] = value.get<double>();
      }
    }
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  return all;
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

}  // namespace lomu

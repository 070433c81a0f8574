#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "engine/commands/base_model.h"
#include "engine/commands/inspect_views.h"
#include "engine/optimizers/telemetry.h"
#include "engine/session/adapter_source.h"

namespace lomu {
namespace {

constexpr std::size_t kShown = 3;  // singular values in a row of the table

double frobenius(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum);
}

struct PairView {
  const AdapterPair* pair;
  double norm_a = 0;
  double norm_b = 0;
  std::vector<double> spectrum;  ///< of scale B A, descending
};

std::vector<PairView> look_at(const AdapterFile& adapter, const ModelConfig& config) {
  std::vector<PairView> views;
  for (const AdapterPair& pair : adapter.pairs) {
    const WeightShape shape = shape_of(config, weight_of(pair.layer, pair.site));
    views.push_back({&pair, frobenius(pair.a), frobenius(pair.b),
                     product_spectrum(pair.b, pair.a, shape.rows, shape.cols, pair.r, pair.scale)});
  }
  return views;
}

std::string json_of(const AdapterFile& adapter, const std::vector<PairView>& views) {
  nlohmann::ordered_json json;
  json["base_model"] = adapter.base_model;
  json["rslora"] = adapter.use_rslora;
  json["dropout"] = adapter.dropout;
  json["pairs"] = nlohmann::ordered_json::array();
  for (const PairView& view : views) {
    nlohmann::ordered_json pair;
    pair["module"] = module_path(view.pair->layer, view.pair->site);
    pair["rank"] = view.pair->r;
    pair["alpha"] = view.pair->alpha;
    pair["scale"] = view.pair->scale;
    pair["norm_a"] = view.norm_a;
    pair["norm_b"] = view.norm_b;
    pair["singular_values"] = view.spectrum;
    pair["stable_rank"] = stable_rank(view.spectrum);
    json["pairs"].push_back(std::move(pair));
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string text_of(const std::string& folder, const AdapterFile& adapter, const std::vector<PairView>& views,
                    const Style& style) {
  std::size_t trainable = 0;
  for (const AdapterPair& pair : adapter.pairs) trainable += pair.a.size() + pair.b.size();
  std::string text = fmt::format("{}\n  {} pairs, {} parameters, for {}{}\n\n", style.bold(folder),
                                 adapter.pairs.size(), human_count(static_cast<double>(trainable)),
                                 adapter.base_model.empty() ? "an unnamed model" : adapter.base_model,
                                 adapter.use_rslora ? ", rsLoRA" : "");
  text += style.bold(fmt::format("  {:>5} {:<5} {:>4} {:>7} {:>10} {:>10} {:>11}   {}", "layer", "site", "rank",
                                 "scale", "|A|_F", "|B|_F", "stable rank", "largest singular values of scale B A"));
  text += "\n";
  for (const PairView& view : views) {
    text += fmt::format("  {:>5} {:<5} {:>4} {:>7.4g} {:>10.4g} {:>10.4g} {:>11.2f}  ", view.pair->layer,
                        name_of(view.pair->site), view.pair->r, view.pair->scale, view.norm_a, view.norm_b,
                        stable_rank(view.spectrum));
    for (std::size_t i = 0; i < std::min(kShown, view.spectrum.size()); ++i) {
      text += fmt::format(" {:.3e}", view.spectrum[i]);
    }
    text += "\n";
  }
  return text;
}

}  // namespace

std::string view_adapter(const std::filesystem::path& adapter, const std::filesystem::path& model,
                         const ViewOptions& options) {
  const std::filesystem::path folder = find_adapter_folder(adapter);
  const ModelFiles base = open_base_model(model, folder);
  const AdapterFile file = load_adapter(folder, base.config());
  const std::vector<PairView> views = look_at(file, base.config());
  return options.json ? json_of(file, views) : text_of(folder.string(), file, views, options.style);
}

}  // namespace lomu

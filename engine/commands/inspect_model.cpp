#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/commands/inspect_views.h"
#include "kernels/error.h"
#include "models/decoder/weights.h"
#include "models/files/model_files.h"
#include "models/tokenizer/chat.h"
#include "models/tokenizer/tokenizer.h"

namespace lomu {
namespace {

constexpr std::int64_t kRank = 16;  // for which trainable parameters are given

struct SiteView {
  std::string_view site;
  WeightShape shape;
  std::int64_t trainable = 0;  ///< of all layers
};

std::vector<SiteView> sites_of(const ModelConfig& config) {
  std::vector<SiteView> sites;
  for (const Site site : kAllSites) {
    const WeightShape shape = shape_of(config, weight_of(0, site));
    sites.push_back({name_of(site), shape, config.num_layers * kRank * (shape.rows + shape.cols)});
  }
  return sites;
}

/// How many parameters are stored in each type.
std::map<std::string, std::int64_t> types_of(const ModelFiles& files) {
  std::map<std::string, std::int64_t> types;
  for (const WeightId id : weights_of(files.config()))
    types[files.stored_type(id)] += shape_of(files.config(), id).size();
  return types;
}

std::optional<Tokenizer> tokenizer_of(const ModelFiles& files) {
  try {
    return Tokenizer::load(files.path());
  } catch (const FileError&) {
    return std::nullopt;
  }
}

std::string chat_layout_of(const std::optional<Tokenizer>& tokenizer) {
  if (!tokenizer) return "";
  try {
    return std::string(ChatFormat::choose(*tokenizer, "auto").name());
  } catch (const UnsupportedError&) {
    return "";
  }
}

/// What the weights take in memory on a device.
struct DeviceView {
  std::string compute;
  std::size_t weights = 0;
  std::size_t training = 0;  ///< when they are also multiplied by in backward
  std::size_t free = 0;
};

std::optional<DeviceView> look_at(const std::optional<ComputeChoice>& compute, const ModelConfig& config) {
  if (!compute) return std::nullopt;
  const Backend backend = open_backend(*compute);
  return DeviceView{compute->text(), WeightsLayout(config, *backend.ops, false).bytes(),
                    WeightsLayout(config, *backend.ops, true).bytes(), backend.memory->storage().room().free};
}

std::string json_of(const ModelFiles& files, const std::optional<DeviceView>& device) {
  const ModelConfig& config = files.config();
  const auto tokenizer = tokenizer_of(files);
  const std::string chat = chat_layout_of(tokenizer);
  nlohmann::ordered_json json;
  json["path"] = files.path().string();
  json["architecture"] = name_of(config.architecture);
  json["layers"] = config.num_layers;
  json["hidden"] = config.hidden_size;
  json["intermediate"] = config.intermediate_size;
  json["heads"] = config.num_heads;
  json["kv_heads"] = config.num_kv_heads;
  json["head_dim"] = config.head_dim;
  json["vocabulary"] = config.vocab_size;
  json["context"] = config.max_position;
  json["tied_head"] = config.tie_word_embeddings;
  json["parameters"] = files.parameter_count();
  json["stored_bytes"] = files.stored_bytes();
  json["stored_types"] = types_of(files);
  json["tokens"] = tokenizer ? nlohmann::ordered_json(tokenizer->vocab_size()) : nlohmann::ordered_json();
  json["chat_layout"] = chat.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(chat);
  if (device) {
    json["device"] = {{"compute", device->compute},
                      {"weight_bytes", device->weights},
                      {"weight_bytes_to_train", device->training},
                      {"free_bytes", device->free}};
  }
  json["rank"] = kRank;
  for (const SiteView& site : sites_of(config)) {
    json["sites"].push_back(
        {{"site", site.site}, {"out", site.shape.rows}, {"in", site.shape.cols}, {"trainable", site.trainable}});
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string text_of(const ModelFiles& files, const std::optional<DeviceView>& device, const Style& style) {
  const ModelConfig& config = files.config();
  std::string text = style.bold(files.path().string()) + "\n";
  const auto row = [&](const char* name, const std::string& value) {
    text += fmt::format("  {:<14} {}\n", name, value);
  };
  row("architecture", std::string(name_of(config.architecture)));
  row("layers", fmt::format("{}", config.num_layers));
  row("hidden", fmt::format("{}, {} inside the MLP", config.hidden_size, config.intermediate_size));
  row("heads", fmt::format("{} of {}, {} for keys and values", config.num_heads, config.head_dim, config.num_kv_heads));
  row("vocabulary",
      fmt::format("{}{}", config.vocab_size, config.tie_word_embeddings ? ", head tied to embedding" : ""));
  row("context", fmt::format("{} tokens", config.max_position));
  row("parameters", human_count(static_cast<double>(files.parameter_count())));
  std::string types;
  for (const auto& [type, count] : types_of(files)) {
    types += fmt::format("{}{} {}", types.empty() ? "" : ", ", human_count(static_cast<double>(count)), type);
  }
  row("stored", fmt::format("{} ({})", human_bytes(files.stored_bytes()), types));
  const auto tokenizer = tokenizer_of(files);
  const std::string chat = chat_layout_of(tokenizer);
  row("tokenizer", tokenizer ? fmt::format("{} tokens", tokenizer->vocab_size()) : "none here");
  row("chat layout", chat.empty() ? "none known" : chat);
  if (device) {
    const std::string more =
        device->training == device->weights ? "" : fmt::format(", {} to train", human_bytes(device->training));
    row("in memory", fmt::format("{}{} ({}; {} free)", human_bytes(device->weights), more, device->compute,
                                 human_bytes(device->free)));
  }

  text += fmt::format(
      "\n{}\n", style.bold(fmt::format("  {:<6} {:>6} {:>6}   trainable at rank {}", "site", "out", "in", kRank)));
  std::int64_t all = 0;
  for (const SiteView& site : sites_of(config)) {
    all += site.trainable;
    text += fmt::format("  {:<6} {:>6} {:>6}   {:>9}\n", site.site, site.shape.rows, site.shape.cols,
                        human_count(static_cast<double>(site.trainable)));
  }
  const double share = 100.0 * static_cast<double>(all) / static_cast<double>(files.parameter_count());
  return text + fmt::format("  {:<6} {:>6} {:>6}   {:>9}  ({:.2f} % of the model)\n", "all", "", "",
                            human_count(static_cast<double>(all)), share);
}

}  // namespace

std::string view_model(const std::filesystem::path& model, const std::optional<ComputeChoice>& compute,
                       const ViewOptions& options) {
  const ModelFiles files = ModelFiles::open(model);
  const auto device = look_at(compute, files.config());
  return options.json ? json_of(files, device) : text_of(files, device, options.style);
}

}  // namespace lomu

#include "models/files/untrained.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/error.h"
#include "kernels/philox.h"

namespace lomu {
namespace {

double deviation_of(const ModelConfig& config, WeightId id) {
  const auto in = static_cast<double>(shape_of(config, id).cols);
  if (id.kind == WeightKind::kEmbed) return 1;
  if (id.kind == WeightKind::kLmHead) return 1 / in;
  return 1 / std::sqrt(in);
}

}  // namespace

ModelConfig config_of(const UntrainedModel& model) {
  constexpr const char* kWhere = "model.scratch";
  const auto refuse = [](std::string what, std::string hint) {
    throw UsageError(std::move(what), kWhere, std::move(hint));
  };
  if (model.hidden % model.heads != 0 || model.hidden / model.heads % 2 != 0) {
    refuse(fmt::format("{} heads do not divide a width of {} into heads of an even size", model.heads, model.hidden),
           "for example hidden 128 with 4 heads");
  }
  if (model.heads % model.kv_heads != 0) {
    refuse(fmt::format("{} kv_heads do not divide {} heads", model.kv_heads, model.heads),
           "for example the same number");
  }
  ModelConfig config;
  config.architecture = Architecture::kLlama;
  config.hidden_size = model.hidden;
  config.intermediate_size = model.intermediate;
  config.num_layers = model.layers;
  config.num_heads = model.heads;
  config.num_kv_heads = model.kv_heads;
  config.head_dim = model.hidden / model.heads;
  config.vocab_size = model.vocab;
  config.max_position = model.context;
  config.rms_norm_eps = 1e-5;
  config.sliding_window.assign(static_cast<std::size_t>(model.layers), 0);
  config.without_base = model.without_base;
  validate(config, kWhere);
  return config;
}

void untrained_weight(const ModelConfig& config, std::uint64_t seed, WeightId id, std::int64_t first,
                      std::span<float> out) {
  if (shape_of(config, id).vector) {
    std::fill(out.begin(), out.end(), 1.0f);
    return;
  }
  const Philox random(seed, Purpose::kModelInit);
  const std::uint64_t stream = (static_cast<std::uint64_t>(id.kind) << 32) + static_cast<std::uint64_t>(id.layer);
  const auto deviation = static_cast<float>(deviation_of(config, id));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::uint64_t at = static_cast<std::uint64_t>(first) + i;
    out[i] = deviation * random.normals(stream, at / 4)[at % 4];
  }
}

}  // namespace lomu

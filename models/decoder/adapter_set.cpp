#include "models/decoder/adapter_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/error.h"
#include "models/decoder/adapter_init.h"
#include "models/files/model_files.h"

namespace lomu {
namespace {

constexpr std::int64_t kMaxRank = 256;
/// The matrices and norms of a layer as backward finishes them.
constexpr std::array kLayerOrder{WeightKind::kDown, WeightKind::kUp,    WeightKind::kGate,    WeightKind::kMlpNorm,
                                 WeightKind::kO,    WeightKind::kKNorm, WeightKind::kQNorm,   WeightKind::kV,
                                 WeightKind::kK,    WeightKind::kQ,     WeightKind::kAttnNorm};

PairInfo make_pair(const ModelConfig& config, std::int64_t layer, Site site, std::int64_t rank, double alpha,
                   double scale, std::int64_t offset) {
  const WeightShape shape = shape_of(config, weight_of(layer, site));
  PairInfo p;
  p.name = module_path(layer, site);
  p.weight = weight_of(layer, site);
  p.layer = layer;
  p.site = site;
  p.in = shape.cols;
  p.out = shape.rows;
  p.rank = rank;
  p.alpha = alpha;
  p.scale = scale;
  p.offset_a = offset;
  p.offset_b = offset + p.size_a();
  return p;
}

PairInfo make_full(const ModelConfig& config, WeightId weight, std::int64_t offset) {
  constexpr std::string_view kSuffix = ".weight";
  const WeightShape shape = shape_of(config, weight);
  PairInfo p;
  p.name = hf_name(weight);
  p.name.resize(p.name.size() - kSuffix.size());
  p.weight = weight;
  p.full = true;
  p.layer = weight.layer;
  if (const auto site = site_of(weight.kind)) p.site = *site;
  p.in = shape.cols;
  p.out = shape.rows;
  p.rank = shape.cols;
  p.alpha = static_cast<double>(shape.cols);
  p.scale = 1;
  p.offset_a = offset;
  p.offset_b = offset;
  return p;
}

bool contains(const auto& list, const auto& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

/// Whether a weight of this kind can be trained in full: a matrix or a norm, no bias.
bool can_be_full(WeightKind kind) {
  const bool outside_of_layers =
      kind == WeightKind::kEmbed || kind == WeightKind::kLmHead || kind == WeightKind::kFinalNorm;
  return outside_of_layers || contains(kLayerOrder, kind);
}

void check_full(const ModelConfig& config, const AdapterOptions& o) {
  for (const WeightKind kind : o.full) {
    const std::string name = hf_name({kind, 0});
    const auto site = site_of(kind);
    if (!can_be_full(kind)) throw UsageError(fmt::format("{} cannot be trained in full", name), "adapter.full");
    if (site && contains(o.targets, *site)) {
      throw UsageError(fmt::format("{} is both a target and trained in full", name_of(*site)), "adapter.full",
                       "name it in adapter.targets or in adapter.full");
    }
    if (kind == WeightKind::kLmHead && config.tie_word_embeddings) {
      throw UsageError("the head of this model is its embedding", "adapter.full", "name embedding: it is both");
    }
    if (!config.qk_norm && (kind == WeightKind::kQNorm || kind == WeightKind::kKNorm)) {
      throw UsageError("this model has no norms of q and k", "adapter.full");
    }
  }
}

void check(const ModelConfig& config, const AdapterOptions& o) {
  if (o.targets.empty() && o.full.empty()) {
    throw UsageError("nothing is trained: no target sites and no weights in full", "adapter.targets",
                     "name at least one");
  }
  if (!(o.gauge > 0) || !std::isfinite(o.gauge)) {
    throw UsageError(fmt::format("gauge {} is not a positive number", o.gauge), "adapter.gauge");
  }
  check_full(config, o);
  if (o.rank < 1 || o.rank > kMaxRank) {
    throw UsageError(fmt::format("rank {} is outside 1 ... {}", o.rank, kMaxRank), "adapter.rank");
  }
  if (!(o.alpha > 0) || !std::isfinite(o.alpha)) {
    throw UsageError(fmt::format("alpha {} is not a positive number", o.alpha), "adapter.alpha");
  }
  if (!(o.dropout >= 0 && static_cast<float>(o.dropout) < 1)) {
    throw UsageError(fmt::format("dropout {} is outside 0 ... 1 (1 itself excluded)", o.dropout), "adapter.dropout");
  }
  if (!o.layers) return;
  if (o.layers->empty()) throw UsageError("an adapter without layers", "adapter.layers", "leave it out for all layers");
  for (const std::int64_t layer : *o.layers) {
    if (layer >= 0 && layer < config.num_layers) continue;
    throw UsageError(fmt::format("the model has no layer {}", layer), "adapter.layers",
                     fmt::format("its layers are 0 ... {}", config.num_layers - 1));
  }
}

bool all_finite(const auto* values, std::int64_t count) {
  return std::all_of(values, values + count, [](auto v) { return std::isfinite(v); });
}

}  // namespace

std::vector<PairInfo> plan_pairs(const ModelConfig& config, const AdapterOptions& options) {
  check(config, options);
  const auto rank = static_cast<double>(options.rank);
  const double scale = options.alpha / (options.rslora ? std::sqrt(rank) : rank);
  std::vector<PairInfo> pairs;
  const auto add_full = [&](WeightId weight) {
    if (contains(options.full, weight.kind)) pairs.push_back(make_full(config, weight, flat_size(pairs)));
  };
  add_full({WeightKind::kLmHead, 0});
  add_full({WeightKind::kFinalNorm, 0});
  for (std::int64_t layer = config.num_layers - 1; layer >= 0; --layer) {
    if (options.layers && !contains(*options.layers, layer)) continue;
    for (const WeightKind kind : kLayerOrder) {
      add_full({kind, layer});
      const auto site = site_of(kind);
      if (!site || !contains(options.targets, *site)) continue;
      pairs.push_back(make_pair(config, layer, *site, options.rank, options.alpha, scale, flat_size(pairs)));
    }
  }
  add_full({WeightKind::kEmbed, 0});
  return pairs;
}

std::vector<PairInfo> plan_pairs(const ModelConfig& config, const AdapterFile& file) {
  std::vector<PairInfo> pairs;
  const auto add_full = [&](WeightId weight) {
    const bool is_there =
        std::any_of(file.full.begin(), file.full.end(), [&](const FullWeight& f) { return f.weight == weight; });
    if (is_there) pairs.push_back(make_full(config, weight, flat_size(pairs)));
  };
  add_full({WeightKind::kLmHead, 0});
  add_full({WeightKind::kFinalNorm, 0});
  for (std::int64_t layer = config.num_layers - 1; layer >= 0; --layer) {
    for (const WeightKind kind : kLayerOrder) {
      add_full({kind, layer});
      const auto at = std::find_if(file.pairs.begin(), file.pairs.end(),
                                   [&](const AdapterPair& p) { return p.layer == layer && site_of(kind) == p.site; });
      if (at == file.pairs.end()) continue;
      pairs.push_back(make_pair(config, layer, at->site, at->r, at->alpha, at->scale, flat_size(pairs)));
    }
  }
  add_full({WeightKind::kEmbed, 0});
  return pairs;
}

std::int64_t flat_size(std::span<const PairInfo> pairs) {
  return pairs.empty() ? 0 : pairs.back().offset_b + pairs.back().size_b();
}

std::size_t adapter_set_bytes(std::span<const PairInfo> pairs, std::optional<DType> gradient) {
  return static_cast<std::size_t>(flat_size(pairs)) * (sizeof(float) + (gradient ? size_of(*gradient) : 0));
}

AdapterSet::AdapterSet(const ModelConfig& config, const AdapterOptions& options, const ModelFiles& files,
                       std::optional<DType> gradient, Memory& memory)
    : pairs_(plan_pairs(config, options)), dropout_(options.dropout), rslora_(options.rslora) {
  allocate(gradient, memory);
  for (const PairInfo& pair : pairs_) {
    if (pair.full) {
      files.read(pair.weight, b(pair));
      continue;
    }
    if (options.init == AdapterInit::kZero) {
      init_zero(pair, options.seed, a(pair), b(pair));
    } else if (config.without_base) {
      init_alone(pair, options.seed, a(pair), b(pair));
    } else {
      init_balanced(pair, options.seed, files, a(pair), b(pair));
    }
    const auto gauge = static_cast<float>(options.gauge);
    for (float& x : a(pair)) x /= gauge;
    for (float& x : b(pair)) x *= gauge;
  }
}

AdapterSet::AdapterSet(const ModelConfig& config, const AdapterFile& file, std::optional<DType> gradient,
                       Memory& memory)
    : pairs_(plan_pairs(config, file)), dropout_(file.dropout), rslora_(file.use_rslora) {
  allocate(gradient, memory);
  for (const AdapterPair& source : file.pairs) {
    const PairInfo& pair = pairs_[*find(weight_of(source.layer, source.site))];
    std::copy(source.a.begin(), source.a.end(), a(pair).begin());
    std::copy(source.b.begin(), source.b.end(), b(pair).begin());
  }
  for (const FullWeight& source : file.full) {
    const PairInfo& pair = pairs_[*find(source.weight)];
    std::copy(source.values.begin(), source.values.end(), b(pair).begin());
  }
}

void AdapterSet::allocate(std::optional<DType> gradient, Memory& memory) {
  size_ = static_cast<std::size_t>(flat_size(pairs_));
  factors_ = memory.allocate(Scope::kAdapters, size_ * sizeof(float), "adapter factors");
  if (!gradient) return;
  gradient_dtype_ = *gradient;
  gradients_ = memory.allocate(Scope::kAdapters, size_ * size_of(*gradient), "adapter gradients");
}

std::optional<std::size_t> AdapterSet::find(WeightId weight) const {
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    if (pairs_[i].weight == weight) return i;
  }
  return std::nullopt;
}

bool AdapterSet::has_full() const {
  return std::any_of(pairs_.begin(), pairs_.end(), [](const PairInfo& p) { return p.full; });
}

Tensor AdapterSet::gradients() const {
  if (gradients_.data() == nullptr) return {};
  return {gradients_.data(), gradient_dtype_, 1, static_cast<std::int64_t>(size_)};
}

std::optional<std::string> AdapterSet::first_nonfinite_gradient() const {
  const Tensor g = gradients();
  if (g.empty()) return std::nullopt;
  for (const PairInfo& p : pairs_) {
    const std::int64_t count = p.size_a() + p.size_b();
    const bool finite = g.dtype == DType::kF64 ? all_finite(g.as<double>() + p.offset_a, count)
                                               : all_finite(g.as<float>() + p.offset_a, count);
    if (!finite) return p.name;
  }
  return std::nullopt;
}

AdapterFile AdapterSet::to_file(std::string base_model) const {
  AdapterFile file;
  file.base_model = std::move(base_model);
  file.use_rslora = rslora_;
  file.dropout = dropout_;
  for (const PairInfo& p : pairs_) {
    const auto right = a(p);
    const auto left = b(p);
    if (p.full) {
      file.full.push_back({p.weight, {left.begin(), left.end()}});
      continue;
    }
    file.pairs.push_back(
        {p.layer, p.site, p.rank, p.alpha, p.scale, {right.begin(), right.end()}, {left.begin(), left.end()}});
  }
  std::sort(file.pairs.begin(), file.pairs.end(), [](const AdapterPair& x, const AdapterPair& y) {
    return std::pair(x.layer, x.site) < std::pair(y.layer, y.site);
  });
  std::sort(file.full.begin(), file.full.end(),
            [](const FullWeight& x, const FullWeight& y) { return x.weight < y.weight; });
  return file;
}

}  // namespace lomu

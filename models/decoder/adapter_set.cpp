#include "models/decoder/adapter_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/error.h"
#include "models/decoder/adapter_init.h"

namespace lomu {
namespace {

constexpr std::int64_t kMaxRank = 256;
constexpr std::array kBackwardOrder{Site::kDown, Site::kUp, Site::kGate, Site::kO, Site::kV, Site::kK, Site::kQ};

PairInfo make_pair(const ModelConfig& config, std::int64_t layer, Site site, std::int64_t rank, double alpha,
                   double scale, std::int64_t offset) {
  const WeightShape shape = shape_of(config, weight_of(layer, site));
  PairInfo p;
  p.name = module_path(layer, site);
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

void check(const ModelConfig& config, const AdapterOptions& o) {
  if (o.targets.empty()) throw UsageError("an adapter without target sites", "adapter.targets", "name at least one");
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

bool contains(const auto& list, const auto& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
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
  for (std::int64_t layer = config.num_layers - 1; layer >= 0; --layer) {
    if (options.layers && !contains(*options.layers, layer)) continue;
    for (const Site site : kBackwardOrder) {
      if (!contains(options.targets, site)) continue;
      pairs.push_back(make_pair(config, layer, site, options.rank, options.alpha, scale, flat_size(pairs)));
    }
  }
  return pairs;
}

std::vector<PairInfo> plan_pairs(const ModelConfig& config, const AdapterFile& file) {
  std::vector<PairInfo> pairs;
  for (std::int64_t layer = config.num_layers - 1; layer >= 0; --layer) {
    for (const Site site : kBackwardOrder) {
      const auto at = std::find_if(file.pairs.begin(), file.pairs.end(),
                                   [&](const AdapterPair& p) { return p.layer == layer && p.site == site; });
      if (at == file.pairs.end()) continue;
      pairs.push_back(make_pair(config, layer, site, at->r, at->alpha, at->scale, flat_size(pairs)));
    }
  }
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
    if (options.init == AdapterInit::kZero) {
      init_zero(pair, options.seed, a(pair), b(pair));
    } else {
      init_balanced(pair, options.seed, files, a(pair), b(pair));
    }
  }
}

AdapterSet::AdapterSet(const ModelConfig& config, const AdapterFile& file, std::optional<DType> gradient,
                       Memory& memory)
    : pairs_(plan_pairs(config, file)), dropout_(file.dropout), rslora_(file.use_rslora) {
  allocate(gradient, memory);
  for (const AdapterPair& source : file.pairs) {
    const PairInfo& pair = pairs_[*find(source.layer, source.site)];
    std::copy(source.a.begin(), source.a.end(), a(pair).begin());
    std::copy(source.b.begin(), source.b.end(), b(pair).begin());
  }
}

void AdapterSet::allocate(std::optional<DType> gradient, Memory& memory) {
  size_ = static_cast<std::size_t>(flat_size(pairs_));
  factors_ = memory.allocate(Scope::kAdapters, size_ * sizeof(float), "adapter factors");
  if (!gradient) return;
  gradient_dtype_ = *gradient;
  gradients_ = memory.allocate(Scope::kAdapters, size_ * size_of(*gradient), "adapter gradients");
}

std::optional<std::size_t> AdapterSet::find(std::int64_t layer, Site site) const {
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    if (pairs_[i].layer == layer && pairs_[i].site == site) return i;
  }
  return std::nullopt;
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
    file.pairs.push_back(
        {p.layer, p.site, p.rank, p.alpha, p.scale, {right.begin(), right.end()}, {left.begin(), left.end()}});
  }
  std::sort(file.pairs.begin(), file.pairs.end(), [](const AdapterPair& x, const AdapterPair& y) {
    return std::pair(x.layer, x.site) < std::pair(y.layer, y.site);
  });
  return file;
}

}  // namespace lomu

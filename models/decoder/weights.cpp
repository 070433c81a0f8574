#include "models/decoder/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/error.h"
#include "kernels/memory.h"
#include "kernels/staging.h"
#include "models/files/model_files.h"

namespace lomu {
namespace {

constexpr std::size_t kGroupsPerLayer = 4;  // qkv, o, gate|up, down
// Elements that a thread takes at once: small beside any model, large beside a task's cost. On a device that is a copy
// that is waited for, some 20 us; in host memory 1 MB of floats stays in a cache from one step to the next.
constexpr std::int64_t kTaskOnDevice = std::int64_t{1} << 21;
constexpr std::int64_t kTaskOnHost = std::int64_t{1} << 18;

}  // namespace

/// Rows of one weight that one thread reads at once. Vectors are single rows.
struct WeightsLayout::Task {
  WeightId id;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const Group* group = nullptr;  ///< null: the embedding table, or a vector
  std::size_t part = 0;
  std::size_t offset = 0;  ///< in the region, where the group is null
  DType dtype = DType::kF32;
};

SitePlace place_of(Site site) {
  switch (site) {
    case Site::kQ: return {&LayerWeights::qkv, 0};
    case Site::kK: return {&LayerWeights::qkv, 1};
    case Site::kV: return {&LayerWeights::qkv, 2};
    case Site::kO: return {&LayerWeights::o, 0};
    case Site::kGate: return {&LayerWeights::gate_up, 0};
    case Site::kUp: return {&LayerWeights::gate_up, 1};
    case Site::kDown: return {&LayerWeights::down, 0};
  }
  throw Error("a site that is none of the seven");
}

DType embedding_type(const Precision& precision) {
  return precision.activation == DType::kBF16 ? DType::kBF16 : DType::kF32;
}

bool has_bias(const ModelConfig& config, AdaptedLinear LayerWeights::*group) {
  return std::any_of(kAllSites.begin(), kAllSites.end(),
                     [&](Site site) { return place_of(site).group == group && has_bias(config, site); });
}

std::int64_t spare_columns(const ModelConfig& config, const Ops& ops, AdaptedLinear LayerWeights::*group,
                           std::int64_t rank) {
  return ops.spare_columns(rank, has_bias(config, group));
}

WeightsLayout::WeightsLayout(const ModelConfig& config, const Ops& ops, bool training, std::span<const PairInfo> pairs)
    : config_(config), embedding_dtype_(embedding_type(ops.precision())) {
  const auto table = static_cast<std::size_t>(config.vocab_size * config.hidden_size);
  embedding_offset_ = reserve(table * size_of(embedding_dtype_));
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    add_group({{WeightKind::kQ, layer}, {WeightKind::kK, layer}, {WeightKind::kV, layer}}, training, ops, pairs);
    add_group({{WeightKind::kO, layer}}, training, ops, pairs);
    add_group({{WeightKind::kGate, layer}, {WeightKind::kUp, layer}}, training, ops, pairs);
    add_group({{WeightKind::kDown, layer}}, training, ops, pairs);
  }
  add_group({{WeightKind::kLmHead, 0}}, training, ops, pairs);
  for (const WeightId id : weights_of(config)) {
    if (shape_of(config, id).vector) add_vector(id);
  }
  std::sort(vectors_.begin(), vectors_.end(), [](const Vector& a, const Vector& b) { return a.id < b.id; });
}

std::size_t WeightsLayout::reserve(std::size_t bytes) {
  const std::size_t offset = bytes_;
  bytes_ += (bytes + Memory::kAlignment - 1) / Memory::kAlignment * Memory::kAlignment;
  return offset;
}

void WeightsLayout::add_group(std::vector<WeightId> parts, bool training, const Ops& ops,
                              std::span<const PairInfo> pairs) {
  Group group;
  group.linear.in = shape_of(config_, parts.front()).cols;
  for (const WeightId id : parts) group.linear.outs.push_back(shape_of(config_, id).rows);
  group.linear.backward = training;
  const auto is_full = [&](WeightId id) {
    return std::any_of(pairs.begin(), pairs.end(), [&](const PairInfo& p) { return p.full && p.weight == id; });
  };
  const bool projections = site_of(parts.front().kind).has_value();
  for (const WeightId id : parts) group.absent.push_back(config_.without_base && projections && !is_full(id));
  group.linear.zero = std::all_of(group.absent.begin(), group.absent.end(), [](bool absent) { return absent; });
  if (const auto site = site_of(parts.front().kind)) {
    std::int64_t rank = 0;
    for (const PairInfo& pair : pairs) {
      const bool is_here = std::find(parts.begin(), parts.end(), pair.weight) != parts.end();
      if (is_here && !pair.full) rank += pair.rank;
    }
    group.linear.spare = spare_columns(config_, ops, place_of(*site).group, rank);
  }
  group.parts = std::move(parts);
  group.offset = reserve(ops.frozen_bytes(group.linear));
  groups_.push_back(std::move(group));
}

void WeightsLayout::add_vector(WeightId id) {
  const std::int64_t size = shape_of(config_, id).size();
  vectors_.push_back({id, size, reserve(static_cast<std::size_t>(size) * sizeof(float))});
}

std::vector<WeightsLayout::Task> WeightsLayout::tasks(std::int64_t elements) const {
  std::vector<Task> list;
  const auto add_rows = [&](const Task& whole) {
    const std::int64_t step = std::max<std::int64_t>(1, elements / whole.cols / Ops::kPackRows) * Ops::kPackRows;
    for (std::int64_t row = 0; row < whole.rows; row += step) {
      Task task = whole;
      task.first_row = row;
      task.rows = std::min(step, whole.rows - row);
      list.push_back(task);
    }
  };
  for (const Group& group : groups_) {
    if (group.linear.zero) continue;
    for (std::size_t part = 0; part < group.parts.size(); ++part) {
      add_rows({group.parts[part], 0, group.linear.outs[part], group.linear.in, &group, part});
    }
  }
  add_rows({{WeightKind::kEmbed, 0},
            0,
            config_.vocab_size,
            config_.hidden_size,
            nullptr,
            0,
            embedding_offset_,
            embedding_dtype_});
  for (const Vector& v : vectors_) list.push_back({v.id, 0, 1, v.size, nullptr, 0, v.offset, DType::kF32});
  return list;
}

void WeightsLayout::fill(std::span<std::byte> region, const ModelFiles& files, const Ops& ops, int threads,
                         Memory& memory) const {
  if (region.size() < bytes_) throw Error(fmt::format("weights need {} bytes, not {}", bytes_, region.size()));
  const std::vector<Task> list = tasks(ops.storage().on_host() ? kTaskOnHost : kTaskOnDevice);

  const auto rows_of = [&](const Task& task, std::vector<std::byte>& space) {
    if (task.group == nullptr || !task.group->absent[task.part]) {
      return files.encoded_rows(task.id, task.first_row, task.rows, space);
    }
    space.assign(static_cast<std::size_t>(task.rows * task.cols) * sizeof(float), std::byte{});
    return EncodedRows{Encoding::kF32, space.data(), task.rows, task.cols};
  };
  const auto run = [&](const Task& task, std::vector<std::byte>& space, Staging& staging) {
    const EncodedRows rows = staging.bring(rows_of(task, space));
    if (task.group != nullptr) {
      FrozenLinear linear = task.group->linear;
      linear.storage = region.data() + task.group->offset;
      ops.pack_frozen(linear, task.part, task.first_row, rows);
      return;
    }
    std::byte* to =
        region.data() + task.offset + static_cast<std::size_t>(task.first_row * task.cols) * size_of(task.dtype);
    ops.dequantize(rows, Tensor(to, task.dtype, task.rows, task.cols));
  };

  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      std::vector<std::byte> space;
      Staging staging(memory);
      for (std::size_t i = next++; i < list.size(); i = next++) run(list[i], space, staging);
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      failure = std::current_exception();
      next = list.size();
    }
  };
  {
    std::vector<std::jthread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

AdaptedLinear WeightsLayout::bind_group(const std::byte* region, std::size_t index) const {
  const Group& group = groups_[index];
  AdaptedLinear linear;
  linear.frozen = group.linear;
  linear.frozen.storage = const_cast<std::byte*>(region) + group.offset;  // packing alone writes there
  for (const WeightId id : group.parts) {
    const auto site = site_of(id.kind);
    const bool biased = site.has_value() && has_bias(config_, *site);
    linear.bias.push_back(biased ? bind_vector(region, bias_of(id.layer, *site)) : nullptr);
  }
  linear.adapters.resize(group.parts.size());
  return linear;
}

const float* WeightsLayout::bind_vector(const std::byte* region, WeightId id) const {
  const auto at = std::lower_bound(vectors_.begin(), vectors_.end(), id,
                                   [](const Vector& v, WeightId wanted) { return v.id < wanted; });
  return reinterpret_cast<const float*>(region + at->offset);
}

ModelWeights WeightsLayout::bind(const std::byte* region) const {
  ModelWeights w;
  w.config = config_;
  w.embedding = {const_cast<std::byte*>(region) + embedding_offset_, embedding_dtype_, config_.vocab_size,
                 config_.hidden_size};
  for (std::int64_t i = 0; i < config_.num_layers; ++i) {
    const std::size_t first = static_cast<std::size_t>(i) * kGroupsPerLayer;
    LayerWeights layer;
    layer.attn_norm = bind_vector(region, {WeightKind::kAttnNorm, i});
    layer.qkv = bind_group(region, first);
    if (config_.qk_norm) {
      layer.q_norm = bind_vector(region, {WeightKind::kQNorm, i});
      layer.k_norm = bind_vector(region, {WeightKind::kKNorm, i});
    }
    layer.o = bind_group(region, first + 1);
    layer.mlp_norm = bind_vector(region, {WeightKind::kMlpNorm, i});
    layer.gate_up = bind_group(region, first + 2);
    layer.down = bind_group(region, first + 3);
    w.layers.push_back(std::move(layer));
  }
  w.final_norm = bind_vector(region, {WeightKind::kFinalNorm, 0});
  w.head = bind_group(region, groups_.size() - 1).frozen;
  return w;
}

}  // namespace lomu

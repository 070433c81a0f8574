#include "engine/data/batch.h"

#include <fmt/format.h>

#include <limits>
#include <numeric>

#include "kernels/error.h"

namespace lomu {
namespace {

std::vector<std::uint32_t> all_of(std::span<const Dataset> data) {
  std::size_t count = 0;
  for (const Dataset& d : data) count += d.size();
  if (count > std::numeric_limits<std::uint32_t>::max()) {
    throw UsageError(fmt::format("{} examples are too many for one run", count), "data", "use fewer files");
  }
  std::vector<std::uint32_t> indices(count);
  std::iota(indices.begin(), indices.end(), 0u);
  return indices;
}

}  // namespace

Batch make_batch(std::span<const ExampleRef> examples) {
  std::uint64_t tokens = 0;
  for (const auto& [data, index] : examples) tokens += data->lengths()[index];
  if (tokens > std::numeric_limits<std::int32_t>::max()) {
    throw UsageError(fmt::format("a micro-batch of {} tokens is too large", tokens), "data",
                     "use smaller micro-batches");
  }
  Batch batch;
  batch.ids.reserve(tokens);
  batch.labels.reserve(tokens);
  batch.positions.reserve(tokens);
  batch.cu_seqlens.reserve(examples.size() + 1);
  batch.cu_seqlens.push_back(0);
  for (const auto& [data, index] : examples) {
    const auto ids = data->ids(index);
    const auto labels = data->labels(index);
    batch.ids.insert(batch.ids.end(), ids.begin(), ids.end());
    batch.labels.insert(batch.labels.end(), labels.begin(), labels.end());
    for (std::size_t t = 0; t < ids.size(); ++t) batch.positions.push_back(static_cast<std::int32_t>(t));
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.ids.size()));
    batch.supervised += data->supervised()[index];
  }
  return batch;
}

Batch make_batch(const Dataset& data, std::span<const std::uint32_t> examples) {
  std::vector<ExampleRef> refs;
  refs.reserve(examples.size());
  for (const std::uint32_t e : examples) refs.push_back({&data, e});
  return make_batch(refs);
}

DatasetPart::DatasetPart(const Dataset& data) : DatasetPart(std::span(&data, 1)) {}

DatasetPart::DatasetPart(const Dataset& data, std::vector<std::uint32_t> examples)
    : DatasetPart(std::span(&data, 1), std::move(examples)) {}

DatasetPart::DatasetPart(std::span<const Dataset> data) : DatasetPart(data, all_of(data)) {}

DatasetPart::DatasetPart(std::span<const Dataset> data, std::vector<std::uint32_t> examples)
    : examples_(std::move(examples)) {
  for (const std::uint32_t e : examples_) {
    std::uint32_t index = e;
    std::size_t set = 0;
    while (index >= data[set].size()) index -= static_cast<std::uint32_t>(data[set++].size());
    refs_.push_back({&data[set], index});
    lengths_.push_back(data[set].lengths()[index]);
    supervised_.push_back(data[set].supervised()[index]);
  }
}

Batch DatasetPart::batch(std::span<const std::uint32_t> part_examples) const {
  std::vector<ExampleRef> refs;
  refs.reserve(part_examples.size());
  for (const std::uint32_t e : part_examples) refs.push_back(refs_[e]);
  return make_batch(refs);
}

}  // namespace lomu

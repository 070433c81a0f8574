#include "engine/data/batch.h"

#include <fmt/format.h>

#include <limits>
#include <numeric>

#include "kernels/error.h"

namespace lomu {
namespace {

std::vector<std::uint32_t> all_of(const Dataset& data) {
  std::vector<std::uint32_t> indices(data.size());
  std::iota(indices.begin(), indices.end(), 0u);
  return indices;
}

}  // namespace

Batch make_batch(const Dataset& data, std::span<const std::uint32_t> examples) {
  std::uint64_t tokens = 0;
  for (const std::uint32_t e : examples) tokens += data.lengths()[e];
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
  for (const std::uint32_t e : examples) {
    const auto ids = data.ids(e);
    const auto labels = data.labels(e);
    batch.ids.insert(batch.ids.end(), ids.begin(), ids.end());
    batch.labels.insert(batch.labels.end(), labels.begin(), labels.end());
    for (std::size_t t = 0; t < ids.size(); ++t) batch.positions.push_back(static_cast<std::int32_t>(t));
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.ids.size()));
    batch.supervised += data.supervised()[e];
  }
  return batch;
}

DatasetPart::DatasetPart(const Dataset& data) : DatasetPart(data, all_of(data)) {}

DatasetPart::DatasetPart(const Dataset& data, std::vector<std::uint32_t> examples)
    : data_(&data), examples_(std::move(examples)) {
  for (const std::uint32_t e : examples_) {
    lengths_.push_back(data.lengths()[e]);
    supervised_.push_back(data.supervised()[e]);
  }
}

Batch DatasetPart::batch(std::span<const std::uint32_t> part_examples) const {
  std::vector<std::uint32_t> indices;
  indices.reserve(part_examples.size());
  for (const std::uint32_t e : part_examples) indices.push_back(examples_[e]);
  return make_batch(*data_, indices);
}

}  // namespace lomu

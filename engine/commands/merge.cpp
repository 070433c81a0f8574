#include "engine/commands/merge.h"

#include <algorithm>

namespace lomu {

MergedWeights::MergedWeights(const ModelFiles& files, const AdapterFile& adapter, const Ops& ops, Memory& memory)
    : files_(files), ops_(ops), memory_(memory), staging_(memory) {
  for (const AdapterPair& pair : adapter.pairs) pairs_.emplace(std::pair(pair.layer, pair.site), &pair);
  for (const FullWeight& weight : adapter.full) full_.emplace(weight.weight, &weight);
  product_.frozen.backward = false;
  product_.bias = {nullptr};
  product_.adapters.resize(1);
}

Tensor MergedWeights::matrix_in(Buffer& buffer, std::int64_t rows, std::int64_t cols) {
  const std::size_t bytes = static_cast<std::size_t>(rows * cols) * sizeof(float);
  if (buffer.size() < bytes) {
    buffer = Buffer();
    buffer = memory_.allocate(Scope::kWorkspace, bytes, "rows to merge");
  }
  return {buffer.data(), DType::kF32, rows, cols};
}

void MergedWeights::take_right_factor(const AdapterPair& pair, std::int64_t cols) {
  // A row of a layer's weight has one element for each of its inputs: here the rank, so A goes in by columns.
  std::vector<float> transposed(pair.a.size());
  for (std::int64_t k = 0; k < pair.r; ++k) {
    for (std::int64_t col = 0; col < cols; ++col) {
      transposed[static_cast<std::size_t>(col * pair.r + k)] = pair.a[static_cast<std::size_t>(k * cols + col)];
    }
  }
  product_.frozen.in = pair.r;
  product_.frozen.outs = {cols};
  const std::size_t bytes = ops_.frozen_bytes(product_.frozen);
  if (right_.size() < bytes) {
    right_ = Buffer();
    right_ = memory_.allocate(Scope::kWeights, bytes, "right factor");
  }
  product_.frozen.storage = right_.data();
  ops_.pack_frozen(product_.frozen, 0, 0, staging_.bring(encoded(transposed.data(), cols, pair.r)));
  taken_ = &pair;
}

void MergedWeights::read_rows(WeightId id, std::int64_t first, std::int64_t count, std::span<float> out) {
  if (const auto whole = full_.find(id); whole != full_.end()) {
    const auto cols = static_cast<std::int64_t>(out.size()) / std::max<std::int64_t>(count, 1);
    std::copy_n(whole->second->values.begin() + first * cols, out.size(), out.begin());
    return;
  }
  const auto site = site_of(id.kind);
  const auto found = site ? pairs_.find({id.layer, *site}) : pairs_.end();
  if (found == pairs_.end() || count == 0) return files_.read_rows(id, first, count, out);

  const AdapterPair& pair = *found->second;
  const std::int64_t cols = static_cast<std::int64_t>(out.size()) / count;
  if (taken_ != &pair) take_right_factor(pair, cols);

  std::vector<float> scaled(static_cast<std::size_t>(count * pair.r));
  for (std::size_t i = 0; i < scaled.size(); ++i) {
    scaled[i] =
        static_cast<float>(pair.scale * static_cast<double>(pair.b[static_cast<std::size_t>(first * pair.r) + i]));
  }
  const Tensor left = matrix_in(left_, count, pair.r);
  ops_.storage().upload(left.data, scaled.data(), scaled.size() * sizeof(float));
  const Tensor rows = matrix_in(rows_, count, cols);
  ops_.dequantize(staging_.bring(files_.encoded_rows(id, first, count, space_)), rows);
  ops_.linear_forward(product_, left, rows, rows, {});
  ops_.storage().download(out.data(), rows.data, out.size_bytes());
}

}  // namespace lomu

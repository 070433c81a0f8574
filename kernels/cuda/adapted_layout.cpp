#include "kernels/cuda/adapted_layout.h"

#include <algorithm>

#include "kernels/cuda/dequantize.h"

namespace lomu::cuda {
namespace {

constexpr std::int64_t kColumnMultiple = 64;
constexpr std::int64_t kBiasColumns = 2;

std::size_t padded(std::size_t bytes) {
  return (bytes + Memory::kAlignment - 1) / Memory::kAlignment * Memory::kAlignment;
}

template <class T>
std::size_t matrix_bytes(std::int64_t rows, std::int64_t cols) {
  return padded(static_cast<std::size_t>(rows * cols) * sizeof(T));
}

bool fits_in_spare(const AdaptedLinear& linear) {
  const std::int64_t rank = linear.total_rank();
  return rank > 0 && rank <= linear.frozen.spare;
}

}  // namespace

std::vector<AdaptedPart> parts_of(const AdaptedLinear& linear) {
  std::vector<AdaptedPart> parts;
  AdaptedPart next;
  for (std::size_t i = 0; i < linear.adapters.size(); ++i) {
    next.adapter = &linear.adapters[i];
    next.out = linear.frozen.outs[i];
    next.rank = next.adapter->rank;
    parts.push_back(next);
    next.begin += next.out;
    next.rank_begin += next.rank;
  }
  return parts;
}

bool has_bias(const AdaptedLinear& linear) {
  return std::any_of(linear.bias.begin(), linear.bias.end(), [](const float* bias) { return bias != nullptr; });
}

std::int64_t augmented_columns(std::int64_t rank, bool bias) {
  if (rank == 0) return 0;
  const std::int64_t columns = rank + (bias ? kBiasColumns : 0);
  return (columns + kColumnMultiple - 1) / kColumnMultiple * kColumnMultiple;
}

template <class T>
AdaptedLayout<T>::AdaptedLayout(const AdaptedLinear& linear)
    : weights_(reinterpret_cast<T*>(linear.frozen.storage)),
      weights_ld_(linear.frozen.in + linear.frozen.spare),
      augmented_(fits_in_spare(linear)) {
  const std::int64_t rank = linear.total_rank();
  if (augmented_) {
    width_ = linear.frozen.spare;
    right_ = weights_ + linear.frozen.out() * weights_ld_;
    left_ = weights_ + linear.frozen.in;
    right_ld_ = left_ld_ = weights_ld_;
  } else {
    width_ = rank;
    right_ = reinterpret_cast<T*>(linear.packed);
    left_ = rank == 0 ? nullptr : reinterpret_cast<T*>(linear.packed + matrix_bytes<T>(rank, linear.frozen.in));
    right_ld_ = linear.frozen.in;
    left_ld_ = rank;
  }
  holds_bias_ = augmented_ && has_bias(linear) && rank + kBiasColumns <= width_;
}

template <class T>
std::size_t AdaptedLayout<T>::frozen_bytes(const FrozenLinear& linear) {
  return matrix_bytes<T>(linear.out() + linear.spare, linear.in + linear.spare);
}

template <class T>
std::size_t AdaptedLayout<T>::adapter_bytes(const AdaptedLinear& linear) {
  if (fits_in_spare(linear)) return 0;
  const std::int64_t rank = linear.total_rank();
  return matrix_bytes<T>(rank, linear.frozen.in) + matrix_bytes<T>(linear.frozen.out(), rank);
}

template <class T>
void AdaptedLayout<T>::pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                                   const EncodedRows& w, Stream stream) {
  std::int64_t row = first_row;
  for (std::size_t i = 0; i < part; ++i) row += linear.outs[i];
  const std::int64_t ld = linear.in + linear.spare;
  dequantize<T>(w, {reinterpret_cast<T*>(linear.storage) + row * ld, ld}, linear.spare, stream);
}

template <class T>
void AdaptedLayout<T>::append_rectangles(const AdaptedLinear& linear, std::vector<FactorRectangle<T>>& table) const {
  const std::int64_t in = linear.frozen.in;
  const auto add = [&](T* to, std::int64_t ld, std::int64_t rows, std::int64_t cols, const float* from,
                       std::int64_t from_begin, std::int64_t from_cols, double factor, const float* bias) {
    if (rows == 0) return;
    FactorRectangle<T> r;
    r.from = from_cols > 0 ? from : nullptr;
    r.bias = bias;
    r.to = to;
    r.to_ld = ld;
    r.rows = static_cast<std::int32_t>(rows);
    r.cols = static_cast<std::int32_t>(cols);
    r.from_begin = static_cast<std::int32_t>(from_begin);
    r.from_cols = static_cast<std::int32_t>(from_cols);
    r.bias_begin = static_cast<std::int32_t>(width_ - kBiasColumns);
    r.factor = static_cast<float>(factor);
    if (!table.empty()) r.first_block = table.back().first_block + factor_blocks(table.back().rows, table.back().cols);
    table.push_back(r);
  };
  for (const AdaptedPart& part : parts_of(linear)) {
    add(right_ + part.rank_begin * right_ld_, right_ld_, part.rank, in, part.adapter->a, 0, in, 1, nullptr);
    const auto number = static_cast<std::size_t>(part.adapter - linear.adapters.data());
    add(left_ + part.begin * left_ld_, left_ld_, part.out, width_, part.adapter->b, part.rank_begin, part.rank,
        part.adapter->scale, holds_bias_ ? linear.bias[number] : nullptr);
  }
  const std::int64_t rank = linear.total_rank();
  add(right_ + rank * right_ld_, right_ld_, width_ - rank, in, nullptr, 0, 0, 1, nullptr);
}

template <class T>
std::optional<PackedPair> AdaptedLayout<T>::places(const AdaptedLinear& linear, std::size_t part) const {
  if constexpr (std::is_same_v<T, BF16>) {
    const AdaptedPart p = parts_of(linear)[part];
    return PackedPair{{left_ + p.begin * left_ld_ + p.rank_begin, left_ld_, static_cast<float>(p.adapter->scale)},
                      {right_ + p.rank_begin * right_ld_, right_ld_, 1.0F}};
  } else {
    return std::nullopt;
  }
}

template class AdaptedLayout<float>;
template class AdaptedLayout<BF16>;

}  // namespace lomu::cuda

// The four packed forms of a group's LoRA factors, all inside AdaptedLinear::packed. "down" is the right factor
// (lora_A, in -> rank), "up" the left one (lora_B, rank -> out) times the scale; the parts of a group share their
// input, so their down factors are stacked and one product makes all columns of S.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/cpu/pack.h"
#include "kernels/ops.h"

namespace lomu::cpu {

template <class T>
class AdapterPanels {
 public:
  explicit AdapterPanels(const AdaptedLinear& linear) : linear_(linear), rank_(linear.total_rank()) {
    std::size_t offset = down_shape().bytes() + down_grad_shape().bytes();
    for (std::size_t i = 0; i < linear.adapters.size(); ++i) {
      offsets_.push_back(offset);
      offset += up_shape(i).bytes() + up_grad_shape(i).bytes();
    }
    bytes_ = offset;
  }

  [[nodiscard]] std::size_t bytes() const { return rank_ == 0 ? 0 : bytes_; }
  /// First column of `part` in S.
  [[nodiscard]] std::int64_t column(std::size_t part) const {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < part; ++i) sum += linear_.adapters[i].rank;
    return sum;
  }

  [[nodiscard]] PanelShape down_shape() const { return {linear_.frozen.in, rank_, kDTypeOf<T>}; }       ///< S = x A^T
  [[nodiscard]] PanelShape down_grad_shape() const { return {rank_, linear_.frozen.in, kDTypeOf<T>}; }  ///< dx = dS A
  [[nodiscard]] PanelShape up_shape(std::size_t i) const {  ///< y += S (s B)^T
    return {linear_.adapters[i].rank, linear_.frozen.outs[i], kDTypeOf<T>};
  }
  [[nodiscard]] PanelShape up_grad_shape(std::size_t i) const {  ///< dS = dY (s B)
    return {linear_.frozen.outs[i], linear_.adapters[i].rank, kDTypeOf<T>};
  }

  [[nodiscard]] T* down() const { return at(0); }
  [[nodiscard]] T* down_grad() const { return at(down_shape().bytes()); }
  [[nodiscard]] T* up(std::size_t i) const { return at(offsets_[i]); }
  [[nodiscard]] T* up_grad(std::size_t i) const { return at(offsets_[i] + up_shape(i).bytes()); }

 private:
  [[nodiscard]] T* at(std::size_t offset) const { return reinterpret_cast<T*>(linear_.packed + offset); }

  const AdaptedLinear& linear_;
  std::int64_t rank_;
  std::size_t bytes_ = 0;
  std::vector<std::size_t> offsets_;
};

}  // namespace lomu::cpu

// Where the frozen weights and the factors of an adapted linear group lie on the device. With spare rows and columns
// (FrozenLinear::spare = p > 0), weights and factors are one row-major buffer [out + p, in + p]:
//
//              in        p
//     out  [   W   |  s B  b ]       s B: each part's left factor times its scale, block-diagonal, [out, ranks];
//     p    [   A   |         ]       A:   the right factors stacked, [ranks, in];
//          [   0   |         ]       b:   the bias as two numbers, in the last two columns, if the group has one;
//                                    zeros elsewhere, but the corner, which nobody reads.
//
//     S  = x A^T        y  = [x | S 0 1 1] [W | s B 0 b]^T
//     dS = dY (s B)     dX = [dY | dS 0] [W; A; 0]
//
// so that a base layer and its adapters are one product each way. Without spare room, or if the ranks exceed it, W is
// dense and A [ranks, in] and s B [out, ranks] lie in AdaptedLinear::packed. T is BF16 or float.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/cuda/pack_factors.h"
#include "kernels/ops.h"

namespace lomu::cuda {

/// Part i of a group: rows [begin, begin + out) of W, columns [rank_begin, rank_begin + rank) of S.
struct AdaptedPart {
  const Adapter* adapter = nullptr;
  std::int64_t begin = 0, out = 0;
  std::int64_t rank_begin = 0, rank = 0;
};
std::vector<AdaptedPart> parts_of(const AdaptedLinear& linear);

/// Whether any part has a bias.
bool has_bias(const AdaptedLinear& linear);

/// Spare columns for a total rank: enough for it and a bias, a multiple of 64, so that rows keep their alignment and
/// the depth of the products stays whole tiles. 0 for rank 0: a base model pays nothing.
std::int64_t augmented_columns(std::int64_t rank, bool bias);

template <class T>
class AdaptedLayout {
 public:
  explicit AdaptedLayout(const AdaptedLinear& linear);

  static std::size_t frozen_bytes(const FrozenLinear& linear);
  /// Of AdaptedLinear::packed.
  static std::size_t adapter_bytes(const AdaptedLinear& linear);
  /// Writes rows of a part, with zeros in the spare columns. From several threads at once.
  static void pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row, const EncodedRows& w,
                          Stream stream);

  /// Whether weights and factors are one buffer.
  [[nodiscard]] bool augmented() const { return augmented_; }
  /// Whether the bias lies in it too.
  [[nodiscard]] bool holds_bias() const { return holds_bias_; }
  /// Columns of s B and rows of A as stored: the spare ones, or the total rank.
  [[nodiscard]] std::int64_t width() const { return width_; }
  [[nodiscard]] T* weights() const { return weights_; }
  [[nodiscard]] T* right() const { return right_; }
  [[nodiscard]] T* left() const { return left_; }
  [[nodiscard]] std::int64_t weights_ld() const { return weights_ld_; }
  [[nodiscard]] std::int64_t right_ld() const { return right_ld_; }
  [[nodiscard]] std::int64_t left_ld() const { return left_ld_; }

  /// Appends what has to be written when factors have changed: A and s B whole, zeros included.
  void append_rectangles(const AdaptedLinear& linear, std::vector<FactorRectangle<T>>& table) const;
  /// Of these, where the factors of part number `part` alone are. Empty where T is float.
  [[nodiscard]] std::optional<PackedPair> places(const AdaptedLinear& linear, std::size_t part) const;

 private:
  T* weights_;
  T* right_;
  T* left_;
  std::int64_t weights_ld_, right_ld_, left_ld_, width_;
  bool augmented_, holds_bias_;
};

extern template class AdaptedLayout<float>;
extern template class AdaptedLayout<BF16>;

}  // namespace lomu::cuda

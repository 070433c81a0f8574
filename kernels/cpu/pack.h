// Packing into the panels of gemm.h: matrices that become the right-hand side of a tile product.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gemm.h"

namespace lomu::cpu {

template <class T>
inline constexpr DType kDTypeOf = DType::kF32;
template <>
inline constexpr DType kDTypeOf<BF16> = DType::kBF16;

/// b(row0 + i, col0 + j) = scale * w[i][j] for i < rows, j < cols: the rows of w run along k.
template <class T, class W>
void pack_rows(const PanelShape& shape, T* b, const W* w, std::int64_t ldw, std::int64_t row0, std::int64_t rows,
               std::int64_t col0, std::int64_t cols, float scale = 1.0f) {
  const std::int64_t pair = shape.pair();
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols;) {
      const std::int64_t col = col0 + j;
      const std::int64_t count = std::min(cols - j, kPanel - col % kPanel);
      T* out = b + shape.index(row0 + i, col);
      const W* in = w + i * ldw + j;
      for (std::int64_t t = 0; t < count; ++t) out[t * pair] = static_cast<T>(static_cast<float>(in[t]) * scale);
      j += count;
    }
  }
}

/// b(row0 + j, col0 + i) = scale * w[i][j] for i < rows, j < cols: the rows of w become columns (b = w transposed).
template <class T, class W>
void pack_columns(const PanelShape& shape, T* b, const W* w, std::int64_t ldw, std::int64_t row0, std::int64_t cols,
                  std::int64_t col0, std::int64_t rows, float scale = 1.0f) {
  constexpr std::int64_t kStrip = 32;  // columns of w at a time: a strip of the panel stays in the first-level cache
  for (std::int64_t j0 = 0; j0 < cols; j0 += kStrip) {
    const std::int64_t j1 = std::min(cols, j0 + kStrip);
    for (std::int64_t i = 0; i < rows; ++i) {
      const W* in = w + i * ldw;
      for (std::int64_t j = j0; j < j1; ++j) {
        b[shape.index(row0 + j, col0 + i)] = static_cast<T>(static_cast<float>(in[j]) * scale);
      }
    }
  }
}

}  // namespace lomu::cpu

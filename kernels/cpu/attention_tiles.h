// What attention forward and backward share: tile sizes, copies of head tiles, and packing of whole sequences of one
// head into the right-hand sides of tile products.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/pack.h"
#include "kernels/ops.h"

namespace lomu::cpu {

inline constexpr std::int64_t kChunk = 512;  ///< columns of scores at a time: 64 x 512 x 4 bytes = 128 KB of f32

inline std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/// Rows of a tile product are padded to 16, so that few shapes serve all lengths.
inline std::int64_t padded_rows(std::int64_t rows) {
  return round_up(rows, 16);
}

/// tile[i][:] = x[i][:] for i < rows, zero up to padded_rows(rows). tile: [*, cols] contiguous.
template <class T>
void copy_tile(const T* x, std::int64_t ld, std::int64_t rows, std::int64_t cols, T* tile) {
  for (std::int64_t i = 0; i < rows; ++i) std::copy_n(x + i * ld, cols, tile + i * cols);
  std::fill(tile + rows * cols, tile + padded_rows(rows) * cols, T{});
}

/// Panels [head_dim, length rounded to 64] of x [length, head_dim] transposed: the right-hand side of (...) x^T.
/// Columns past the end are zero.
template <class T>
PanelShape pack_transposed(const T* x, std::int64_t ld, std::int64_t length, std::int64_t head_dim, T* panels) {
  const PanelShape shape{head_dim, round_up(length, kPanel), kDTypeOf<T>};
  std::fill_n(panels + (shape.panels() - 1) * shape.panel_stride(), shape.panel_stride(), T{});
  if constexpr (std::is_same_v<T, BF16>) {
    // Pairs of neighbouring features are 32-bit words: the panel is a plain transpose of words.
    if (head_dim % 2 == 0 && ld % 2 == 0 && reinterpret_cast<std::uintptr_t>(x) % 4 == 0) {
      const auto* words = reinterpret_cast<const std::uint32_t*>(x);
      auto* out = reinterpret_cast<std::uint32_t*>(panels);
      if (shape.padded_k() != head_dim) std::fill_n(panels, shape.panels() * shape.panel_stride(), T{});
      for (std::int64_t col = 0; col < length; col += kPanel) {
        const std::int64_t cols = std::min(kPanel, length - col);
        std::uint32_t* panel = out + col / kPanel * (shape.panel_stride() / 2);
        for (std::int64_t p = 0; p < head_dim / 2; ++p) {
          for (std::int64_t i = 0; i < cols; ++i) panel[p * kPanel + i] = words[(col + i) * (ld / 2) + p];
        }
      }
      return shape;
    }
  }
  std::fill_n(panels, shape.panels() * shape.panel_stride(), T{});
  pack_columns(shape, panels, x, ld, 0, head_dim, 0, length);
  return shape;
}

/// Panels [length rounded to 64, head_dim] of x [length, head_dim]: the right-hand side of (...) x. Rows past the end
/// are zero.
template <class T>
PanelShape pack_plain(const T* x, std::int64_t ld, std::int64_t length, std::int64_t head_dim, T* panels) {
  const PanelShape shape{round_up(length, kPanel), head_dim, kDTypeOf<T>};
  const bool ragged = length != shape.k || head_dim % kPanel != 0;
  if (ragged) std::fill_n(panels, shape.panels() * shape.panel_stride(), T{});
  pack_rows(shape, panels, x, ld, 0, length, 0, head_dim);
  return shape;
}

/// c (+)= a[m, k] x[first : first + k, :] with x packed by pack_plain and `first` a multiple of 64. A range of rows of
/// x is contiguous only within a panel, so c [m, head_dim] is in panels too: see SplitRows.
template <class T>
void multiply_rows(TileGemm& gemm, std::int64_t m, std::int64_t k, const T* a, const PanelShape& shape, const T* panels,
                   std::int64_t first, float* c, bool accumulate) {
  for (std::int64_t col = 0; col < shape.n; col += kPanel) {
    gemm.multiply(kDTypeOf<T>, m, std::min(kPanel, shape.n - col), k, a,
                  panels + col / kPanel * shape.panel_stride() + first * kPanel, c + col * kTileRows, accumulate);
  }
}

/// Rows of a [64, cols] tile that lies panel after panel: panel p is [64, width of p] without gaps.
struct SplitRows {
  float* data;
  std::int64_t cols;

  /// Calls body(pointer, first column, columns) for the pieces of row i.
  template <class Body>
  void for_pieces(std::int64_t i, const Body& body) const {
    for (std::int64_t col = 0; col < cols; col += kPanel) {
      const std::int64_t width = std::min(kPanel, cols - col);
      body(data + col * kTileRows + i * width, col, width);
    }
  }
};

}  // namespace lomu::cpu

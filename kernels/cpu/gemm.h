// One-thread matrix products on cache-sized tiles: C[m, n] (+)= A[m, k] B[k, n] with C in f32. oneDNN does the
// arithmetic; this file fixes what it is asked: one layout for B, one thread, no scratch of its own. Parallelism is the
// caller's, over tiles, so a result can never depend on the number of threads.
//
// B lies in panels of 64 columns, each panel [k padded][64], with groups of `pair` rows interleaved as the bf16
// instructions want them (pair = 2; f32: 1):
//   element (k, n) at (n / 64) * panel_stride + (k / pair) * 64 * pair + (n % 64) * pair + k % pair.
// A column range that starts at a multiple of 64 is a plain pointer offset, so one packed matrix serves every tiling.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/dtype.h"

namespace lomu::cpu {

inline constexpr std::int64_t kPanel = 64;  ///< columns of a panel: oneDNN's widest blocked layout for AVX-512
inline constexpr std::int64_t kTileRows =
    64;  ///< rows of a tile: 470 of 530 GFLOP/s bf16 a core (Zen 5), as do 128-512

/// The packed form of B [k, n] with element type bf16 or f32.
struct PanelShape {
  std::int64_t k = 0, n = 0;
  DType dtype = DType::kF32;

  [[nodiscard]] std::int64_t pair() const { return dtype == DType::kBF16 ? 2 : 1; }
  [[nodiscard]] std::int64_t padded_k() const {
    const std::int64_t block = 16 * pair();
    return (k + block - 1) / block * block;
  }
  [[nodiscard]] std::int64_t panels() const { return (n + kPanel - 1) / kPanel; }
  /// Elements of one panel.
  [[nodiscard]] std::int64_t panel_stride() const { return padded_k() * kPanel; }
  [[nodiscard]] std::size_t bytes() const {
    return static_cast<std::size_t>(panels() * panel_stride()) * size_of(dtype);
  }
  /// Byte offset of column `first` (a multiple of kPanel).
  [[nodiscard]] std::size_t column_offset(std::int64_t first) const {
    return static_cast<std::size_t>(first / kPanel * panel_stride()) * size_of(dtype);
  }
  /// Index of element (row, col) in units of dtype.
  [[nodiscard]] std::int64_t index(std::int64_t row, std::int64_t col) const {
    const std::int64_t p = pair();
    return col / kPanel * panel_stride() + row / p * kPanel * p + col % kPanel * p + row % p;
  }
};

/// The tile products of ONE thread: keeps the primitives it has built, by shape. Not thread-safe.
class TileGemm {
 public:
  TileGemm();
  ~TileGemm();
  TileGemm(TileGemm&&) noexcept;
  TileGemm& operator=(TileGemm&&) noexcept;

  /// c[m, n] = (accumulate ? c : 0) + a[m, k] b.  a: row-major bf16 or f32 (`dtype`), b: panels of the same dtype made
  /// for exactly this k, c: row-major f32. a and c have no gaps between rows: oneDNN 2.6 multiplies anything else with
  /// its unoptimised loops, a thousand times slower.
  void multiply(DType dtype, std::int64_t m, std::int64_t n, std::int64_t k, const void* a, const void* b, float* c,
                bool accumulate);

  /// Whether the CPU multiplies bf16 natively (AVX512_BF16 or AMX) in oneDNN's view.
  static bool native_bf16();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lomu::cpu

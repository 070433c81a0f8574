#include "engine/optimizers/tall_products.h"

#include <omp.h>

namespace lomu {
namespace {

// Eight doubles that the compiler keeps in one register where it has 512-bit ones, and splits where it has not.
using Vec [[gnu::vector_size(kLanes * sizeof(double))]] = double;

// Sixteen running sums (8 x 2 vectors, or 4 x 4) leave half of the 32 vector registers for operands and give each of
// the two multiply-add pipelines eight independent sums, twice the depth that hides a latency of four cycles.
constexpr std::int64_t kTileRows = 8;
constexpr std::int64_t kDotTile = 4;

const Vec* vectors(const double* p) {
  return reinterpret_cast<const Vec*>(p);
}
Vec* vectors(double* p) {
  return reinterpret_cast<Vec*>(p);
}

/// c[i][v] (+)= sum over k < depth of a[i * row_stride + k * depth_stride] * b[k * columns + v]; i < kTileRows, v < V.
/// columns: vectors in a row of b and of c.
template <int V, bool kAdd>
void product_tile(const double* a, std::int64_t row_stride, std::int64_t depth_stride, const Vec* b,
                  std::int64_t columns, std::int64_t depth, Vec* c) {
  Vec sum[kTileRows][V] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    for (std::int64_t i = 0; i < kTileRows; ++i) {
      const double x = a[i * row_stride + k * depth_stride];
      for (int v = 0; v < V; ++v) sum[i][v] += x * b[k * columns + v];
    }
  }
  for (std::int64_t i = 0; i < kTileRows; ++i) {
    for (int v = 0; v < V; ++v) c[i * columns + v] = kAdd ? c[i * columns + v] + sum[i][v] : sum[i][v];
  }
}

/// c = a b with a: [rows, depth] row-major with stride lda, b: [depth, columns] vectors, c: [rows, columns] vectors.
void row_major_product(const double* a, std::int64_t lda, const Vec* b, std::int64_t columns, std::int64_t rows,
                       std::int64_t depth, Vec* c) {
  for (std::int64_t i = 0; i < rows; i += kTileRows) {
    std::int64_t v = 0;
    for (; v + 2 <= columns; v += 2)
      product_tile<2, false>(a + i * lda, lda, 1, b + v, columns, depth, c + i * columns + v);
    if (v < columns) product_tile<1, false>(a + i * lda, lda, 1, b + v, columns, depth, c + i * columns + v);
  }
}

void add_tall_gram(const FactorShape& shape, const double* panel, double* gram) {
  const std::int64_t padded = shape.padded_rank();
  const std::int64_t columns = padded / kLanes;
  const std::int64_t depth = shape.panel_length();
  for (std::int64_t i = 0; i < columns; ++i) {
    const double* rows = panel + i * kLanes;
    Vec* out = vectors(gram + i * kLanes * padded);
    std::int64_t v = i;
    for (; v + 2 <= columns; v += 2)
      product_tile<2, true>(rows, 1, padded, vectors(panel) + v, columns, depth, out + v);
    if (v < columns) product_tile<1, true>(rows, 1, padded, vectors(panel) + v, columns, depth, out + v);
  }
}

/// gram[i][j] += <row i, row j> for a tile of 4 x 4 rows of a wide panel.
void dot_tile(const Vec* rows, const Vec* columns, std::int64_t vectors_per_row, double* gram, std::int64_t padded) {
  Vec sum[kDotTile][kDotTile] = {};
  for (std::int64_t k = 0; k < vectors_per_row; ++k) {
    for (std::int64_t i = 0; i < kDotTile; ++i) {
      for (std::int64_t j = 0; j < kDotTile; ++j) {
        sum[i][j] += rows[i * vectors_per_row + k] * columns[j * vectors_per_row + k];
      }
    }
  }
  for (std::int64_t i = 0; i < kDotTile; ++i) {
    for (std::int64_t j = 0; j < kDotTile; ++j) {
      const Vec& s = sum[i][j];
      gram[i * padded + j] += ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    }
  }
}

void add_wide_gram(const FactorShape& shape, const double* panel, double* gram) {
  const std::int64_t padded = shape.padded_rank();
  const std::int64_t per_row = shape.panel_length() / kLanes;
  for (std::int64_t i = 0; i < padded; i += kDotTile) {
    for (std::int64_t j = i; j < padded; j += kDotTile) {
      dot_tile(vectors(panel) + i * per_row, vectors(panel) + j * per_row, per_row, gram + i * padded + j, padded);
    }
  }
}

}  // namespace

void for_each_chunk(const FactorShape& shape,
                    const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& work) {
  const std::int64_t chunks = (shape.length + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(static) if (chunks > 1 && !omp_in_parallel())
  for (std::int64_t c = 0; c < chunks; ++c) work(c, c * kChunk, std::min(shape.length, (c + 1) * kChunk));
}

void add_panel_gram(const FactorShape& shape, const double* panel, double* gram) {
  shape.wide ? add_wide_gram(shape, panel, gram) : add_tall_gram(shape, panel, gram);
}

void multiply_panel(const FactorShape& shape, const double* panel, const double* k, double* product) {
  const std::int64_t padded = shape.padded_rank();
  const std::int64_t length = shape.panel_length();
  if (shape.wide) {
    row_major_product(k, padded, vectors(panel), length / kLanes, padded, shape.rank, vectors(product));
  } else {
    row_major_product(panel, padded, vectors(k), padded / kLanes, length, shape.rank, vectors(product));
  }
}

SmallMatrix gram_of(const FactorShape& shape, const float* factor) {
  return gram_from_runs(shape,
                        [factor](const Run& run, double* panel) {
                          const float* from = factor + run.factor;
                          double* to = panel + run.panel;
#pragma omp simd
                          for (std::int64_t i = 0; i < run.count; ++i) to[i] = from[i];
                          return 0.0;
                        })
      .gram;
}

}  // namespace lomu

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

std::int64_t whole_vectors(std::int64_t count) {
  return (count + kLanes - 1) / kLanes;
}

/// A row-major matrix whose rows are whole vectors, `stride` of them apart.
template <class V>
struct VecRows {
  V* data;
  std::int64_t stride;
  [[nodiscard]] VecRows from(std::int64_t row, std::int64_t column) const {
    return {data + row * stride + column, stride};
  }
};

/// c[i][v] (+)= sum over k < depth of a[i * row_stride + k * depth_stride] * b[k][v]; i < kTileRows, v < V.
template <int V, bool kAdd>
void product_tile(const double* a, std::int64_t row_stride, std::int64_t depth_stride, VecRows<const Vec> b,
                  std::int64_t depth, VecRows<Vec> c) {
  Vec sum[kTileRows][V] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    for (std::int64_t i = 0; i < kTileRows; ++i) {
      const double x = a[i * row_stride + k * depth_stride];
      for (int v = 0; v < V; ++v) sum[i][v] += x * b.data[k * b.stride + v];
    }
  }
  for (std::int64_t i = 0; i < kTileRows; ++i) {
    Vec* out = c.data + i * c.stride;
    for (int v = 0; v < V; ++v) out[v] = kAdd ? out[v] + sum[i][v] : sum[i][v];
  }
}

/// The tiles of one row of tiles, for columns first <= v < last.
template <bool kAdd>
void product_row(const double* a, std::int64_t row_stride, std::int64_t depth_stride, VecRows<const Vec> b,
                 std::int64_t depth, VecRows<Vec> c, std::int64_t first, std::int64_t last) {
  std::int64_t v = first;
  for (; v + 2 <= last; v += 2) {
    product_tile<2, kAdd>(a, row_stride, depth_stride, b.from(0, v), depth, c.from(0, v));
  }
  if (v < last) product_tile<1, kAdd>(a, row_stride, depth_stride, b.from(0, v), depth, c.from(0, v));
}

void add_tall_gram(const FactorShape& shape, const double* panel, std::int64_t rows, double* gram) {
  const std::int64_t padded = shape.padded_rank();
  const std::int64_t columns = padded / kLanes;
  const VecRows<const Vec> x{vectors(panel), columns};
  const VecRows<Vec> out{vectors(gram), columns};
  for (std::int64_t i = 0; i < columns; ++i) {
    product_row<true>(panel + i * kLanes, 1, padded, x, rows, out.from(i * kLanes, 0), i, columns);
  }
}

/// gram[i][j] += <row i of x, row j of y> for 4 x 4 rows of a wide panel.
void dot_tile(VecRows<const Vec> x, VecRows<const Vec> y, std::int64_t count, double* gram, std::int64_t padded) {
  Vec sum[kDotTile][kDotTile] = {};
  for (std::int64_t k = 0; k < count; ++k) {
    for (std::int64_t i = 0; i < kDotTile; ++i) {
      for (std::int64_t j = 0; j < kDotTile; ++j) sum[i][j] += x.data[i * x.stride + k] * y.data[j * y.stride + k];
    }
  }
  for (std::int64_t i = 0; i < kDotTile; ++i) {
    for (std::int64_t j = 0; j < kDotTile; ++j) {
      const Vec& s = sum[i][j];
      gram[i * padded + j] += ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    }
  }
}

void add_wide_gram(const FactorShape& shape, const double* panel, std::int64_t columns, double* gram) {
  const std::int64_t padded = shape.padded_rank();
  const VecRows<const Vec> x{vectors(panel), shape.panel_stride() / kLanes};
  for (std::int64_t i = 0; i < padded; i += kDotTile) {
    for (std::int64_t j = i; j < padded; j += kDotTile) {
      dot_tile(x.from(i, 0), x.from(j, 0), whole_vectors(columns), gram + i * padded + j, padded);
    }
  }
}

}  // namespace

void for_each_chunk(const FactorShape& shape,
                    const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& work) {
  const std::int64_t chunks = shape.chunks();
#pragma omp parallel for schedule(static) if (chunks > 1 && !omp_in_parallel())
  for (std::int64_t c = 0; c < chunks; ++c) {
    work(c, c * shape.chunk_length(), std::min(shape.length, (c + 1) * shape.chunk_length()));
  }
}

void add_panel_gram(const FactorShape& shape, const double* panel, std::int64_t rows, double* gram) {
  shape.wide ? add_wide_gram(shape, panel, rows, gram) : add_tall_gram(shape, panel, rows, gram);
}

Panel padded_matrix(const FactorShape& shape, const SmallMatrix& k) {
  const std::int64_t padded = shape.padded_rank();
  Panel out(padded * padded);
  out.clear();
  for (std::int64_t i = 0; i < shape.rank; ++i) {
    for (std::int64_t j = 0; j < shape.rank; ++j) out.data()[i * padded + j] = shape.wide ? k(j, i) : k(i, j);
  }
  return out;
}

void multiply_panel(const FactorShape& shape, const double* panel, std::int64_t rows, const double* k,
                    double* product) {
  const std::int64_t padded = shape.padded_rank();
  const std::int64_t stride = shape.panel_stride();
  const VecRows<Vec> out{vectors(product), stride / kLanes};
  const VecRows<const Vec> right = shape.wide ? VecRows<const Vec>{vectors(panel), stride / kLanes}
                                              : VecRows<const Vec>{vectors(k), padded / kLanes};
  const double* left = shape.wide ? k : panel;
  const std::int64_t out_rows = shape.wide ? padded : whole_vectors(rows) * kLanes;
  const std::int64_t out_columns = shape.wide ? whole_vectors(rows) : padded / kLanes;
  for (std::int64_t i = 0; i < out_rows; i += kTileRows) {
    product_row<false>(left + i * padded, padded, 1, right, shape.rank, out.from(i, 0), 0, out_columns);
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

SmallMatrix cross_gram(const FactorShape& shape, const float* a, const float* b) {
  const std::int64_t r = shape.rank;
  const std::int64_t chunks = shape.chunks();
  std::vector<SmallMatrix> partial(static_cast<std::size_t>(chunks), SmallMatrix(r));
  for_each_chunk(shape, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
    SmallMatrix& sum = partial[static_cast<std::size_t>(chunk)];
    if (shape.wide) {
      for (std::int64_t i = 0; i < r; ++i) {
        for (std::int64_t j = 0; j < r; ++j) {
          const float* x = a + i * shape.length;
          const float* y = b + j * shape.length;
          double dot = 0.0;
          for (std::int64_t k = begin; k < end; ++k) dot += static_cast<double>(x[k]) * y[k];
          sum(i, j) = dot;
        }
      }
      return;
    }
    for (std::int64_t k = begin; k < end; ++k) {
      const float* y = b + k * r;
      for (std::int64_t i = 0; i < r; ++i) {
        const double x = a[k * r + i];
        double* row = &sum(i, 0);
        for (std::int64_t j = 0; j < r; ++j) row[j] += x * y[j];
      }
    }
  });
  SmallMatrix total(r);
  for (const SmallMatrix& sum : partial) {
    for (std::size_t i = 0; i < total.values().size(); ++i) total.values()[i] += sum.values()[i];
  }
  return total;
}

}  // namespace lomu

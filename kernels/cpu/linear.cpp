// Forward and backward of the adapted linear layer, tile by tile. A tile of C (64 rows x up to 768 columns, f32) stays
// in the second-level cache while base product, adapter product, bias, residual and rounding pass over it; the wide
// activations are therefore written once and never re-read by the adapter.
#include "kernels/cpu/linear.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/adapter_panels.h"
#include "kernels/cpu/linear_slots.h"
#include "kernels/cpu/skinny.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/dropout.h"

namespace lomu::cpu {
using namespace linear_slots;
namespace {

// With few rows a product is bound by reading the weights, so narrower tiles spread it over the threads.
constexpr std::int64_t kNarrowTile = 192;
constexpr std::int64_t kFewRows = 16;

struct ColumnTile {
  std::size_t part;
  std::int64_t first;  ///< column within the part
  std::int64_t count;
  std::int64_t offset;  ///< column within the group
};

/// Cuts every part into nearly equal tiles of whole panels.
std::vector<ColumnTile> column_tiles(const std::vector<std::int64_t>& outs, std::int64_t rows) {
  const std::int64_t widest = rows <= kFewRows ? kNarrowTile : kWideTile;
  std::vector<ColumnTile> tiles;
  std::int64_t offset = 0;
  for (std::size_t part = 0; part < outs.size(); ++part) {
    const std::int64_t out = outs[part];
    const std::int64_t pieces = (out + widest - 1) / widest;
    const std::int64_t step = ((out + pieces - 1) / pieces + kPanel - 1) / kPanel * kPanel;
    for (std::int64_t first = 0; first < out; first += step) {
      tiles.push_back({part, first, std::min(step, out - first), offset + first});
    }
    offset += out;
  }
  return tiles;
}

std::int64_t row_tiles(std::int64_t rows) {
  return (rows + kTileRows - 1) / kTileRows;
}

template <class T>
const T* at_column(const PanelShape& shape, const T* panels, std::int64_t first) {
  return reinterpret_cast<const T*>(reinterpret_cast<const std::byte*>(panels) + shape.column_offset(first));
}

/// dropped[i][j] = x[i][j] kept or zeroed, divided by 1 - p; x[0][0] is element (row0, col0) of the mask.
template <class T>
void apply_dropout(const Dropout& dropout, const T* x, std::int64_t ldx, std::int64_t row0, std::int64_t rows,
                   std::int64_t col0, std::int64_t cols, T* dropped) {
  const float scale = 1.0f / (1.0f - dropout.p);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      const bool keep = dropout_keep(dropout.key, dropout.first_row + row0 + i, col0 + j, dropout.p);
      dropped[i * cols + j] = keep ? static_cast<T>(static_cast<float>(x[i * ldx + j]) * scale) : T{};
    }
  }
}

/// Rows of x without gaps: themselves, or copied into the worker's scratch.
template <class T>
const T* dense_rows(Worker& worker, Memory& memory, Slot slot, const T* x, std::int64_t ld, std::int64_t rows,
                    std::int64_t cols) {
  if (ld == cols || rows == 1) return x;
  T* copy = worker.scratch<T>(slot, kTileRows * cols, memory);
  for (std::int64_t i = 0; i < rows; ++i) std::copy_n(x + i * ld, cols, copy + i * cols);
  return copy;
}

template <class T>
void narrow_tile(const float* c, std::int64_t ldc, std::int64_t rows, std::int64_t cols, T* y, std::int64_t ldy) {
  for (std::int64_t i = 0; i < rows; ++i) narrow(c + i * ldc, y + i * ldy, cols);
}

/// S = dropout(x) A^T for all parts at once; a part with dropout of its own takes its columns from a product of its
/// own.
template <class T>
void low_rank_forward(Team& team, const AdaptedLinear& linear, const AdapterPanels<T>& panels, const Tensor& x,
                      const Tensor& s) {
  const std::int64_t in = linear.frozen.in;
  const std::int64_t rank = s.cols;
  team.for_each(row_tiles(x.rows), [&](std::int64_t tile, Worker& worker) {
    const std::int64_t row0 = tile * kTileRows;
    const std::int64_t rows = std::min(kTileRows, x.rows - row0);
    float* c = worker.scratch<float>(kTile, kTileRows * rank, team.memory());
    const auto product = [&](const T* input) {
      worker.gemm.multiply(kDTypeOf<T>, rows, rank, in, input, panels.down(), c, false);
    };
    if (!has_dropout(linear)) {
      product(dense_rows(worker, team.memory(), kLeft, x.row<T>(row0), x.ld, rows, in));
      narrow_tile(c, rank, rows, rank, s.row<T>(row0), s.ld);
      return;
    }
    T* dropped = worker.scratch<T>(kDropped, kTileRows * in, team.memory());
    for (std::size_t part = 0; part < linear.adapters.size(); ++part) {
      const Adapter& adapter = linear.adapters[part];
      if (adapter.rank == 0) continue;
      apply_dropout(adapter.dropout, x.row<T>(row0), x.ld, row0, rows, 0, in, dropped);
      product(dropped);
      const std::int64_t column = panels.column(part);
      narrow_tile(c + column, rank, rows, adapter.rank, s.row<T>(row0) + column, s.ld);
    }
  });
}

/// What happens to a finished tile of y: bias, residual, rounding.
template <class T>
void finish_tile(const float* bias, const ColumnTile& tile, std::int64_t row0, std::int64_t rows, float* c,
                 const Tensor& residual, const Tensor& y) {
  for (std::int64_t i = 0; i < rows; ++i) {
    float* row = c + i * tile.count;
    if (bias != nullptr) {
#pragma omp simd
      for (std::int64_t j = 0; j < tile.count; ++j) row[j] += bias[tile.first + j];
    }
    if (!residual.empty()) {
      const float* r = residual.row<float>(row0 + i) + tile.offset;
#pragma omp simd
      for (std::int64_t j = 0; j < tile.count; ++j) row[j] += r[j];
    }
    if (y.dtype == DType::kF32) {
      narrow(row, y.row<float>(row0 + i) + tile.offset, tile.count);
    } else {
      narrow(row, y.row<T>(row0 + i) + tile.offset, tile.count);
    }
  }
}

}  // namespace

template <class T>
Tensor as_activation(Team& team, const Tensor& dy) {
  if (dy.dtype == kDTypeOf<T>) return dy;
  Tensor rounded(team.scratch<T>(kRounded, dy.size()), kDTypeOf<T>, dy.rows, dy.cols);
  team.for_each(row_tiles(dy.rows), [&](std::int64_t tile, Worker&) {
    const std::int64_t end = std::min(dy.rows, (tile + 1) * kTileRows);
    for (std::int64_t i = tile * kTileRows; i < end; ++i) narrow(dy.row<float>(i), rounded.row<T>(i), dy.cols);
  });
  return rounded;
}

namespace {

/// dS = dY (s B), all parts side by side as in S.
template <class T>
void low_rank_backward(Team& team, const AdaptedLinear& linear, const AdapterPanels<T>& panels, const Tensor& dy,
                       const Tensor& ds) {
  team.for_each(row_tiles(dy.rows), [&](std::int64_t tile, Worker& worker) {
    const std::int64_t row0 = tile * kTileRows;
    const std::int64_t rows = std::min(kTileRows, dy.rows - row0);
    std::int64_t offset = 0;
    for (std::size_t part = 0; part < linear.adapters.size(); ++part) {
      const std::int64_t r = linear.adapters[part].rank;
      if (r > 0) {
        float* c = worker.scratch<float>(kTile, kTileRows * r, team.memory());
        const std::int64_t out = linear.frozen.outs[part];
        const T* left = dense_rows(worker, team.memory(), kLeft, dy.row<T>(row0) + offset, dy.ld, rows, out);
        worker.gemm.multiply(kDTypeOf<T>, rows, r, out, left, panels.up_grad(part), c, false);
        narrow_tile(c, r, rows, r, ds.row<T>(row0) + panels.column(part), ds.ld);
      }
      offset += linear.frozen.outs[part];
    }
  });
}

/// One gradient of a factor: grad[i, j] (or [j, i]) = scale * sum_t left[t, i] right[t, j].
struct FactorGradient {
  Tensor left;   ///< [T, rank]
  Tensor right;  ///< [T, n]
  float scale;
  float* out;
  bool transposed;          ///< out is [n, rank]
  Dropout dropout;          ///< of `right`
  std::int64_t packed = 0;  ///< where the packed form of `left` begins in the team's scratch
};

template <class T>
std::vector<FactorGradient> list_factor_gradients(const AdaptedLinear& linear, const AdapterPanels<T>& panels,
                                                  const Tensor& x, const Tensor& s, const Tensor& dy,
                                                  const Tensor& ds) {
  std::vector<FactorGradient> gradients;
  std::int64_t offset = 0;
  for (std::size_t part = 0; part < linear.adapters.size(); ++part) {
    const Adapter& adapter = linear.adapters[part];
    const std::int64_t out = linear.frozen.outs[part];
    if (adapter.rank > 0) {
      const std::int64_t column = panels.column(part);
      gradients.push_back(
          {ds.columns(column, adapter.rank), x, 1.0f, static_cast<float*>(adapter.grad_a), false, adapter.dropout});
      gradients.push_back({s.columns(column, adapter.rank),
                           dy.columns(offset, out),
                           static_cast<float>(adapter.scale),
                           static_cast<float*>(adapter.grad_b),
                           true,
                           {}});
    }
    offset += out;
  }
  return gradients;
}

/// Columns [first, first + kSkinnyColumns) of one gradient.
template <class T>
void factor_gradient_tile(Team& team, Worker& worker, const FactorGradient& g, const T* packed, std::int64_t first) {
  const std::int64_t tokens = g.left.rows;
  const std::int64_t r = g.left.cols;
  const std::int64_t cols = std::min(kSkinnyColumns, g.right.cols - first);
  float* result = worker.scratch<float>(kSkinnyOut, skinny_result_size(r), team.memory());
  const T* x = g.right.row<T>(0) + first;
  std::int64_t ldx = g.right.ld;
  if (g.dropout.p > 0) {
    T* dropped = worker.scratch<T>(kDropped, tokens * cols, team.memory());
    apply_dropout(g.dropout, x, ldx, 0, tokens, first, cols, dropped);
    x = dropped;
    ldx = cols;
  }
  skinny_gradient(packed, tokens, r, x, ldx, cols, result);
  if (g.transposed) {
    for (std::int64_t j = 0; j < cols; ++j) {
      for (std::int64_t i = 0; i < r; ++i) g.out[(first + j) * r + i] = g.scale * result[i * kSkinnyColumns + j];
    }
    return;
  }
  for (std::int64_t i = 0; i < r; ++i) {
    for (std::int64_t j = 0; j < cols; ++j)
      g.out[i * g.right.cols + first + j] = g.scale * result[i * kSkinnyColumns + j];
  }
}

template <class T>
void factor_gradients(Team& team, std::vector<FactorGradient> gradients) {
  std::int64_t total = 0;
  for (FactorGradient& g : gradients) {
    g.packed = total;
    total += skinny_pack_size(g.left.rows, g.left.cols);
  }
  T* packed = team.scratch<T>(kSkinnyLeft, total);
  team.for_each(static_cast<std::int64_t>(gradients.size()), [&](std::int64_t i, Worker&) {
    const FactorGradient& g = gradients[static_cast<std::size_t>(i)];
    skinny_pack(g.left.row<T>(0), g.left.ld, g.left.rows, g.left.cols, packed + g.packed);
  });
  constexpr std::int64_t kUnitColumns = 8 * kSkinnyColumns;  // enough to be worth a thread's while
  struct Unit {
    std::size_t gradient;
    std::int64_t first;
  };
  std::vector<Unit> units;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    for (std::int64_t first = 0; first < gradients[i].right.cols; first += kUnitColumns) units.push_back({i, first});
  }
  team.for_each(static_cast<std::int64_t>(units.size()), [&](std::int64_t u, Worker& worker) {
    const Unit& unit = units[static_cast<std::size_t>(u)];
    const FactorGradient& g = gradients[unit.gradient];
    const std::int64_t end = std::min(unit.first + kUnitColumns, g.right.cols);
    for (std::int64_t first = unit.first; first < end; first += kSkinnyColumns) {
      factor_gradient_tile<T>(team, worker, g, packed + g.packed, first);
    }
  });
}

/// c += the adapters' part of dx for one tile of rows: dS A, through each adapter's mask where it has dropout.
template <class T>
void add_low_rank_dx(Team& team, Worker& worker, const AdaptedLinear& linear, const AdapterPanels<T>& panels,
                     const Tensor& ds, std::int64_t row0, std::int64_t rows, std::int64_t first, std::int64_t cols,
                     float* c) {
  const PanelShape shape = panels.down_grad_shape();
  const T* factor = at_column(shape, panels.down_grad(), first);
  if (!has_dropout(linear)) {
    worker.gemm.multiply(kDTypeOf<T>, rows, cols, ds.cols, ds.row<T>(row0), factor, c, true);
    return;
  }
  T* masked = worker.scratch<T>(kDropped, kTileRows * ds.cols, team.memory());
  float* one = worker.scratch<float>(kSkinnyOut, kTileRows * cols, team.memory());
  for (std::size_t part = 0; part < linear.adapters.size(); ++part) {
    const Adapter& adapter = linear.adapters[part];
    if (adapter.rank == 0) continue;
    const std::int64_t column = panels.column(part);
    std::fill_n(masked, rows * ds.cols, T{});
    for (std::int64_t i = 0; i < rows; ++i) {
      std::copy_n(ds.row<T>(row0 + i) + column, adapter.rank, masked + i * ds.cols + column);
    }
    worker.gemm.multiply(kDTypeOf<T>, rows, cols, ds.cols, masked, factor, one, false);
    const float scale = 1.0f / (1.0f - adapter.dropout.p);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const bool keep =
            dropout_keep(adapter.dropout.key, adapter.dropout.first_row + row0 + i, first + j, adapter.dropout.p);
        if (keep) c[i * cols + j] += one[i * cols + j] * scale;
      }
    }
  }
}

void zero_gradients(const AdaptedLinear& linear) {
  for (std::size_t part = 0; part < linear.adapters.size(); ++part) {
    const Adapter& adapter = linear.adapters[part];
    if (adapter.rank == 0) continue;
    std::fill_n(static_cast<float*>(adapter.grad_a), adapter.rank * linear.frozen.in, 0.0f);
    std::fill_n(static_cast<float*>(adapter.grad_b), adapter.rank * linear.frozen.outs[part], 0.0f);
  }
}

}  // namespace

template <class T>
void linear_forward(Team& team, const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                    const Tensor& s) {
  const AdapterPanels<T> panels(linear);
  if (linear.total_rank() > 0) low_rank_forward<T>(team, linear, panels, x, s);

  const std::int64_t in = linear.frozen.in;
  const std::vector<ColumnTile> columns = column_tiles(linear.frozen.outs, x.rows);
  const auto wide = static_cast<std::int64_t>(columns.size());
  team.for_each(row_tiles(x.rows) * wide, [&](std::int64_t unit, Worker& worker) {
    const std::int64_t row0 = unit / wide * kTileRows;
    const std::int64_t rows = std::min(kTileRows, x.rows - row0);
    const ColumnTile& tile = columns[static_cast<std::size_t>(unit % wide)];
    float* c = worker.scratch<float>(kTile, kTileRows * kWideTile, team.memory());
    if (linear.frozen.zero) {
      std::fill_n(c, rows * tile.count, 0.0f);
    } else {
      const PanelShape shape{in, linear.frozen.outs[tile.part], kDTypeOf<T>};
      const T* w = at_column(shape, forward_panels<T>(linear.frozen, tile.part), tile.first);
      const T* left = dense_rows(worker, team.memory(), kLeft, x.row<T>(row0), x.ld, rows, in);
      worker.gemm.multiply(kDTypeOf<T>, rows, tile.count, in, left, w, c, false);
    }
    if (!linear.adapters.empty() && linear.adapters[tile.part].rank > 0) {
      const std::int64_t r = linear.adapters[tile.part].rank;
      const T* b = at_column(panels.up_shape(tile.part), panels.up(tile.part), tile.first);
      const T* low = s.row<T>(row0) + panels.column(tile.part);
      worker.gemm.multiply(kDTypeOf<T>, rows, tile.count, r,
                           dense_rows(worker, team.memory(), kLeftLowRank, low, s.ld, rows, r), b, c, true);
    }
    const float* bias = linear.bias.empty() ? nullptr : linear.bias[tile.part];
    finish_tile<T>(bias, tile, row0, rows, c, residual, y);
  });
}

template <class T>
void linear_backward(Team& team, const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy_any,
                     const Tensor& dx) {
  if (dy_any.rows == 0) {
    zero_gradients(linear);
    return;
  }
  const Tensor dy = as_activation<T>(team, dy_any);
  const AdapterPanels<T> panels(linear);
  const std::int64_t rank = linear.total_rank();
  Tensor ds;
  if (rank > 0) {
    ds = Tensor(team.scratch<T>(kLowRankGradient, dy.rows * rank), kDTypeOf<T>, dy.rows, rank);
    low_rank_backward<T>(team, linear, panels, dy, ds);
    factor_gradients<T>(team, list_factor_gradients<T>(linear, panels, x, s, dy, ds));
  }
  if (dx.empty()) return;

  const std::vector<ColumnTile> columns = column_tiles({linear.frozen.in}, dy.rows);
  const auto wide = static_cast<std::int64_t>(columns.size());
  const PanelShape shape{linear.frozen.out(), linear.frozen.in, kDTypeOf<T>};
  team.for_each(row_tiles(dy.rows) * wide, [&](std::int64_t unit, Worker& worker) {
    const std::int64_t row0 = unit / wide * kTileRows;
    const std::int64_t rows = std::min(kTileRows, dy.rows - row0);
    const ColumnTile& tile = columns[static_cast<std::size_t>(unit % wide)];
    float* c = worker.scratch<float>(kTile, kTileRows * kWideTile, team.memory());
    if (linear.frozen.zero) {
      std::fill_n(c, rows * tile.count, 0.0f);
    } else {
      const T* w = at_column(shape, backward_panels<T>(linear.frozen), tile.first);
      const T* left = dense_rows(worker, team.memory(), kLeft, dy.row<T>(row0), dy.ld, rows, shape.k);
      worker.gemm.multiply(kDTypeOf<T>, rows, tile.count, shape.k, left, w, c, false);
    }
    if (rank > 0) {
      add_low_rank_dx<T>(team, worker, linear, panels, ds, row0, rows, tile.first, tile.count, c);
    }
    narrow_tile(c, tile.count, rows, tile.count, dx.row<T>(row0) + tile.first, dx.ld);
  });
}

template Tensor as_activation<float>(Team&, const Tensor&);
template Tensor as_activation<BF16>(Team&, const Tensor&);
template void linear_forward<float>(Team&, const AdaptedLinear&, const Tensor&, const Tensor&, const Tensor&,
                                    const Tensor&);
template void linear_forward<BF16>(Team&, const AdaptedLinear&, const Tensor&, const Tensor&, const Tensor&,
                                   const Tensor&);
template void linear_backward<float>(Team&, const AdaptedLinear&, const Tensor&, const Tensor&, const Tensor&,
                                     const Tensor&);
template void linear_backward<BF16>(Team&, const AdaptedLinear&, const Tensor&, const Tensor&, const Tensor&,
                                    const Tensor&);

}  // namespace lomu::cpu

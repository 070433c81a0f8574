// The products of a step that are as long as a factor: Grams (r x r sums over m or n) and factor times r x r matrix.
// Everything else of a step is r x r and lives in small_matrix.h. Data is float32 in memory and double in every
// product: a factor is read in panels that fit the innermost caches, widened there, and never exists in double as a
// whole.
//
// A factor is "tall" ([length, rank], P) or "wide" ([rank, length], Q^T). Both are cut along their length only, at
// places that depend on rank alone, and partial sums are added in order of position: results do not depend on the
// threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include "engine/optimizers/small_matrix.h"

namespace lomu {

inline constexpr std::int64_t kLanes = 8;  ///< doubles in a 512-bit vector; panels are padded to a multiple of it

struct FactorShape {
  bool wide = false;
  std::int64_t length = 0;  ///< m for P, n for Q
  std::int64_t rank = 0;

  [[nodiscard]] std::int64_t padded_rank() const { return (rank + kLanes - 1) / kLanes * kLanes; }

  /// Rows (of Q: columns) in a panel, a multiple of kLanes. Tall: 32 KiB of doubles up to rank 64, so that a panel
  /// stays in the first-level cache, but never under 64 rows, so that sums stay in registers for a while. Wide panels
  /// are summed across their vectors at the end, which pays for longer rows in the second-level cache.
  [[nodiscard]] std::int64_t panel_length() const {
    const std::int64_t doubles = wide ? 32768 : 4096;
    return std::clamp<std::int64_t>(doubles / padded_rank() / kLanes * kLanes, 64, 256);
  }

  /// Whether neither rank nor this number of rows is rounded up to whole vectors.
  [[nodiscard]] bool needs_no_padding(std::int64_t rows) const { return rows % kLanes == 0 && rank % kLanes == 0; }

  /// From a row of a panel to the next. Rows of a wide panel are one cache line further apart than they are long: at a
  /// distance of a power of two, a column of them would fall into a few sets of the cache and push itself out.
  [[nodiscard]] std::int64_t panel_stride() const { return wide ? panel_length() + kLanes : padded_rank(); }

  /// The unit of work of a thread, in rows: 1024 for adapters. A Gram is summed by chunk before the sums are added, so
  /// for a dense matrix, whose Gram may be as large as the rows of a thousand, chunks grow with it.
  [[nodiscard]] std::int64_t chunk_length() const { return std::max<std::int64_t>(1024, 16 * padded_rank()); }
  [[nodiscard]] std::int64_t chunks() const { return (length + chunk_length() - 1) / chunk_length(); }

  [[nodiscard]] std::int64_t panel_size() const { return panel_stride() * (wide ? padded_rank() : panel_length()); }
};

/// Cache-line aligned doubles, not initialised.
class Panel {
 public:
  explicit Panel(std::int64_t size)
      : data_(static_cast<double*>(::operator new[](static_cast<std::size_t>(size) * sizeof(double), kAlign))),
        size_(size) {}
  [[nodiscard]] double* data() { return data_.get(); }
  [[nodiscard]] const double* data() const { return data_.get(); }
  void clear() { std::fill_n(data_.get(), size_, 0.0); }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Delete {
    void operator()(double* p) const { ::operator delete[](p, kAlign); }
  };
  std::unique_ptr<double[], Delete> data_;
  std::int64_t size_;
};

/// A piece of a panel whose elements are neighbours in the factor too.
struct Run {
  std::int64_t factor;  ///< index of the first element in the factor
  std::int64_t panel;   ///< its index in the panel
  std::int64_t count;
};

/// Calls visit(Run) for every run of rows (of a wide factor: columns) [begin, end), at most a panel of them.
/// Panels are [panel_length, padded_rank] for a tall factor and [padded_rank, panel_length] for a wide one, row-major
/// with panel_stride.
template <class Visit>
void for_each_run(const FactorShape& shape, std::int64_t begin, std::int64_t end, Visit&& visit) {
  if (shape.wide) {
    for (std::int64_t j = 0; j < shape.rank; ++j)
      visit(Run{j * shape.length + begin, j * shape.panel_stride(), end - begin});
  } else if (shape.rank == shape.padded_rank()) {
    visit(Run{begin * shape.rank, 0, (end - begin) * shape.rank});
  } else {
    for (std::int64_t i = begin; i < end; ++i)
      visit(Run{i * shape.rank, (i - begin) * shape.padded_rank(), shape.rank});
  }
}

/// gram += X^T X (tall) or X X^T (wide) of the first `rows` rows (of a wide panel: columns) of a panel X; only j >= i
/// in whole vectors. gram: [padded_rank, padded_rank]. Up to the next multiple of kLanes the panel must hold zeros.
void add_panel_gram(const FactorShape& shape, const double* panel, std::int64_t rows, double* gram);

/// The r x r matrix K as multiply_panel takes it: [padded_rank, padded_rank], zero in the padding, and for a wide
/// factor transposed, so that X stands for the factor as P or Q do: X K either way.
Panel padded_matrix(const FactorShape& shape, const SmallMatrix& k);

/// product = X K of the first `rows` rows of a panel X (of a wide panel, which holds X^T: K^T X^T of its first
/// columns), rounded up likewise; k from padded_matrix.
void multiply_panel(const FactorShape& shape, const double* panel, std::int64_t rows, const double* k, double* product);

/// Runs work(chunk index, begin, end) over a factor's chunks; in parallel when the caller is not already one of many.
void for_each_chunk(const FactorShape& shape,
                    const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& work);

/// X^T X (tall) or X X^T (wide) in double, where load(Run, double* panel) writes the elements of a run of X.
/// load may also return a number; the sum of these, in order of position, comes back beside the Gram.
struct GramResult {
  SmallMatrix gram;
  double side_sum = 0.0;
};

template <class Load>
GramResult gram_from_runs(const FactorShape& shape, Load&& load) {
  const std::int64_t size = shape.padded_rank() * shape.padded_rank();
  const std::int64_t chunks = shape.chunks();
  Panel partial(size * chunks);
  partial.clear();
  std::vector<double> side(static_cast<std::size_t>(chunks), 0.0);
  for_each_chunk(shape, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
    Panel panel(shape.panel_size());
    for (std::int64_t at = begin; at < end; at += shape.panel_length()) {
      const std::int64_t stop = std::min(end, at + shape.panel_length());
      if (!shape.needs_no_padding(stop - at)) panel.clear();
      for_each_run(shape, at, stop,
                   [&](const Run& run) { side[static_cast<std::size_t>(chunk)] += load(run, panel.data()); });
      add_panel_gram(shape, panel.data(), stop - at, partial.data() + chunk * size);
    }
  });
  GramResult result{SmallMatrix(shape.rank), 0.0};
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    result.side_sum += side[static_cast<std::size_t>(chunk)];
    const double* sums = partial.data() + chunk * size;
    for (std::int64_t i = 0; i < shape.rank; ++i) {
      for (std::int64_t j = i; j < shape.rank; ++j) result.gram(i, j) += sums[i * shape.padded_rank() + j];
    }
  }
  for (std::int64_t i = 0; i < shape.rank; ++i) {
    for (std::int64_t j = 0; j < i; ++j) result.gram(i, j) = result.gram(j, i);
  }
  return result;
}

/// Gram of a factor as it lies in memory.
SmallMatrix gram_of(const FactorShape& shape, const float* factor);

/// A^T B of two factors of one shape (of wide ones, which are stored transposed, as well: [r, n] [n, r]).
SmallMatrix cross_gram(const FactorShape& shape, const float* a, const float* b);

/// Forms X K panel by panel: load(Run, double* panel) writes X (of a wide factor: X^T), store(Run, const double*
/// product) takes the result of the same run. K: r x r. Every element is loaded and stored once, loaded before it is
/// stored.
template <class Load, class Store>
void multiply(const FactorShape& shape, const SmallMatrix& k, Load&& load, Store&& store) {
  const Panel padded_k = padded_matrix(shape, k);
  for_each_chunk(shape, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    Panel panel(shape.panel_size());
    Panel product(shape.panel_size());
    for (std::int64_t at = begin; at < end; at += shape.panel_length()) {
      const std::int64_t stop = std::min(end, at + shape.panel_length());
      if (!shape.needs_no_padding(stop - at)) panel.clear();
      for_each_run(shape, at, stop, [&](const Run& run) { load(run, panel.data()); });
      multiply_panel(shape, panel.data(), stop - at, padded_k.data(), product.data());
      for_each_run(shape, at, stop, [&](const Run& run) { store(run, product.data()); });
    }
  });
}

}  // namespace lomu

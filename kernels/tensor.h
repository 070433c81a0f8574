// A tensor is a view: pointer, element type, and the shape of a row-major matrix whose rows may be further apart than
// they are long. Everything a decoder touches is a matrix [tokens, features] or a vector [1, n], so two dimensions
// suffice; heads are column ranges. Views own nothing: memory comes from memory.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace lomu {

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t ld = 0;  ///< elements from one row to the next, >= cols
  /// Columns [cols, cols + spare) of every row, within ld, that belong to this tensor too and that an operation may
  /// overwrite when it reads the tensor (Ops::spare_columns).
  std::int64_t spare = 0;

  Tensor() = default;
  Tensor(void* d, DType t, std::int64_t r, std::int64_t c) : data(d), dtype(t), rows(r), cols(c), ld(c) {}
  Tensor(void* d, DType t, std::int64_t r, std::int64_t c, std::int64_t l)
      : data(d), dtype(t), rows(r), cols(c), ld(l) {}

  [[nodiscard]] bool empty() const { return data == nullptr; }
  [[nodiscard]] std::int64_t size() const { return rows * cols; }

  /// First element as T; the caller knows the dtype.
  template <class T>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(data);
  }
  template <class T>
  [[nodiscard]] T* row(std::int64_t i) const {
    return static_cast<T*>(data) + i * ld;
  }

  /// The same tensor with `count` spare columns.
  [[nodiscard]] Tensor with_spare(std::int64_t count) const {
    Tensor t = *this;
    t.spare = count;
    return t;
  }
  /// Columns [first, first + count) of every row; none to spare.
  [[nodiscard]] Tensor columns(std::int64_t first, std::int64_t count) const {
    return {offset(first), dtype, rows, count, ld};
  }
  /// Rows [first, first + count).
  [[nodiscard]] Tensor row_range(std::int64_t first, std::int64_t count) const {
    return Tensor(offset(first * ld), dtype, count, cols, ld).with_spare(spare);
  }

 private:
  [[nodiscard]] void* offset(std::int64_t elements) const {
    return static_cast<std::byte*>(data) + elements * static_cast<std::int64_t>(size_of(dtype));
  }
};

}  // namespace lomu

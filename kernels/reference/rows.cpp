#include <cstring>

#include "kernels/reference/matrix.h"
#include "kernels/reference/reference_ops.h"

namespace lomu::reference {
namespace {

void copy_row(const Tensor& from, std::int64_t i, const Tensor& to, std::int64_t j) {
  std::memcpy(to.row_range(j, 1).data, from.row_range(i, 1).data,
              static_cast<std::size_t>(from.cols) * size_of(from.dtype));
}

}  // namespace

void ReferenceOps::embed(std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out) const {
  require_dtype(table, {DType::kBF16, DType::kF32, DType::kF64}, "embed: table");
  require_dtype(out, {precision_.residual}, "embed: out");
  for (std::size_t t = 0; t < ids.size(); ++t) {
    store(load(table.row_range(ids[t], 1)), out.row_range(static_cast<std::int64_t>(t), 1));
  }
}

void ReferenceOps::gather_rows(const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y) const {
  require_dtype(y, {x.dtype}, "gather_rows: y");
  for (std::size_t i = 0; i < rows.size(); ++i) copy_row(x, rows[i], y, static_cast<std::int64_t>(i));
}

void ReferenceOps::scatter_rows(const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x) const {
  require_dtype(y, {x.dtype}, "scatter_rows: y");
  store(Matrix(x.rows, x.cols), x);
  for (std::size_t i = 0; i < rows.size(); ++i) copy_row(y, static_cast<std::int64_t>(i), x, rows[i]);
}

}  // namespace lomu::reference

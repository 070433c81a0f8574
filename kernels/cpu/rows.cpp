#include <cstring>

#include "kernels/cpu/block.h"
#include "kernels/cpu/vector_math.h"

namespace lomu::cpu {
namespace {

void copy_row(const Tensor& from, std::int64_t i, const Tensor& to, std::int64_t j) {
  const std::size_t size = size_of(from.dtype);
  const auto at = [size](const Tensor& x, std::int64_t row) {
    return static_cast<std::byte*>(x.data) + static_cast<std::size_t>(row * x.ld) * size;
  };
  std::memcpy(at(to, j), at(from, i), static_cast<std::size_t>(from.cols) * size);
}

}  // namespace

template <class T>
void embed(Team& team, std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out) {
  for_rows(team, out.rows, [&](std::int64_t t, Worker&) {
    widen(table.row<T>(ids[static_cast<std::size_t>(t)]), out.row<float>(t), out.cols);
  });
}

void gather_rows(Team& team, const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y) {
  for_rows(team, y.rows, [&](std::int64_t i, Worker&) { copy_row(x, rows[static_cast<std::size_t>(i)], y, i); });
}

void scatter_rows(Team& team, const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x) {
  for_rows(team, x.rows, [&](std::int64_t t, Worker&) {
    const std::size_t size = size_of(x.dtype);
    std::memset(static_cast<std::byte*>(x.data) + static_cast<std::size_t>(t * x.ld) * size, 0,
                static_cast<std::size_t>(x.cols) * size);
  });
  for_rows(team, y.rows, [&](std::int64_t i, Worker&) { copy_row(y, i, x, rows[static_cast<std::size_t>(i)]); });
}

template void embed<float>(Team&, std::span<const std::int32_t>, const Tensor&, const Tensor&);
template void embed<BF16>(Team&, std::span<const std::int32_t>, const Tensor&, const Tensor&);

}  // namespace lomu::cpu

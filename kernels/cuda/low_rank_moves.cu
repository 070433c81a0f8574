// Bound: memory, and the launch: 16,384 tokens and 64 columns of bf16 are 4 MB read and written, about 2 us.
#include <algorithm>

#include "kernels/cuda/low_rank_moves.h"
#include "kernels/cuda/row_access.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kThreads = 256;
constexpr std::size_t kRuns = 4;  // one launch's: as many parts as a group has, and one more

// A thread reads and writes the same eight columns, so s and the spare columns may be the same memory.
template <class T>
__global__ void __launch_bounds__(kThreads)
    fill_spare_kernel(DeviceRows<const T> s, int rank, bool s_is_wide, int ones, DeviceRows<T> spare, bool is_wide,
                      int width, std::int64_t pieces) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= pieces) return;
  const int row_pieces = ceil_div(width, kPiece);
  const std::int64_t row = i / row_pieces;
  const int col = static_cast<int>(i % row_pieces) * kPiece;
  float x[kPiece];
  if (s_is_wide) {
    load_piece<true>(s.data + row * s.ld, col, rank, x);
  } else {
    load_piece<false>(s.data + row * s.ld, col, rank, x);
  }
#pragma unroll
  for (int e = 0; e < kPiece; ++e) {
    if (col + e >= ones) x[e] = 1.0f;
  }
  if (is_wide) {
    store_piece<true>(spare.data + row * spare.ld, col, width, x);
  } else {
    store_piece<false>(spare.data + row * spare.ld, col, width, x);
  }
}

// Block (x, y): part x of run y. Four parameters, for an array of them, indexed, would be copied to local memory.
__global__ void __launch_bounds__(kThreads)
    copy_runs_kernel(FloatRun run0, FloatRun run1, FloatRun run2, FloatRun run3) {
  const FloatRun run = blockIdx.y == 0 ? run0 : blockIdx.y == 1 ? run1 : blockIdx.y == 2 ? run2 : run3;
  const std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  if (is_aligned16(run.from) && is_aligned16(run.to) && at + 4 <= run.count) {
    store16(run.to + at, load16(run.from + at));
  } else {
    for (std::int64_t i = at; i < at + 4 && i < run.count; ++i) run.to[i] = run.from[i];
  }
}

}  // namespace

template <class T>
void fill_spare_columns(DeviceRows<const T> s, std::int64_t rank, bool bias, DeviceRows<T> spare, std::int64_t width,
                        std::int64_t rows, Stream stream) {
  if (rows == 0 || width == 0) return;
  const std::int64_t pieces = rows * ceil_div(width, static_cast<std::int64_t>(kPiece));
  launch(fill_spare_kernel<Element<T>>,
         {static_cast<unsigned>(ceil_div(pieces, static_cast<std::int64_t>(kThreads))), kThreads, 0, stream},
         element_rows(s), static_cast<int>(rank), are_wide(s), static_cast<int>(bias ? width - 2 : width),
         element_rows(spare), are_wide(spare), static_cast<int>(width), pieces);
}

void copy_runs(std::span<const FloatRun> runs, Stream stream) {
  for (std::size_t first = 0; first < runs.size(); first += kRuns) {
    const auto some = runs.subspan(first, std::min(kRuns, runs.size() - first));
    FloatRun table[kRuns];
    std::int64_t longest = 0;
    for (std::size_t i = 0; i < some.size(); ++i) {
      table[i] = some[i];
      longest = std::max(longest, some[i].count);
    }
    if (longest == 0) continue;
    const auto blocks = static_cast<unsigned>(ceil_div(longest, std::int64_t{4} * kThreads));
    launch(copy_runs_kernel, {dim3(blocks, static_cast<unsigned>(some.size())), kThreads, 0, stream}, table[0],
           table[1], table[2], table[3]);
  }
}

template void fill_spare_columns(DeviceRows<const BF16>, std::int64_t, bool, DeviceRows<BF16>, std::int64_t,
                                 std::int64_t, Stream);
template void fill_spare_columns(DeviceRows<const float>, std::int64_t, bool, DeviceRows<float>, std::int64_t,
                                 std::int64_t, Stream);

}  // namespace lomu::cuda

// How kernels that go over the rows of matrices read and write them: in pieces of eight elements, each one or two
// 16-byte accesses where the matrix allows it ("wide"), else element by element: right for any shape and alignment, and
// slow. For .cu files only.
#pragma once

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/gpu.h"

namespace lomu::cuda {

constexpr int kPiece = 8;

/// A matrix with the element type that kernels use.
template <class T>
DeviceRows<gpu::Element<T>> element_rows(DeviceRows<T> m) {
  return {gpu::element_ptr(m.data), m.ld};
}

/// Whether every row of every argument starts at a multiple of 16 bytes. Missing (null) matrices do.
template <class... T>
bool are_wide(DeviceRows<T>... m) {
  return ((gpu::is_aligned16(m.data) && m.ld * static_cast<std::int64_t>(sizeof(T)) % 16 == 0) && ...);
}

/// Columns [col, col + 8) of a row of `cols`, with zeros from `cols` on.
template <bool Wide, class T>
__device__ inline void load_piece(const T* row, int col, int cols, float (&x)[kPiece]) {
  if (Wide && col + kPiece <= cols) {
    gpu::load8(row + col, x);
  } else {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) x[i] = col + i < cols ? gpu::to_float(row[col + i]) : 0.0f;
  }
}

/// Writes those of the eight that lie within the row.
template <bool Wide, class T>
__device__ inline void store_piece(T* row, int col, int cols, const float (&x)[kPiece]) {
  if (Wide && col + kPiece <= cols) {
    gpu::store8(row + col, x);
  } else {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      if (col + i < cols) row[col + i] = gpu::from_float<T>(x[i]);
    }
  }
}

/// A launch with a thread for every piece: row blockIdx.x, columns from own_column() on. A block lies in one row, so
/// nothing is divided, and has no more threads than the row has work for.
inline gpu::Launch thread_per_piece(std::int64_t rows, std::int64_t cols, Stream stream) {
  const auto pieces = static_cast<unsigned>(gpu::ceil_div(cols, kPiece));
  const unsigned most = 256, threads = pieces < most ? gpu::ceil_div(pieces, 32u) * 32 : most;
  return {dim3(static_cast<unsigned>(rows), gpu::ceil_div(pieces, threads)), threads, 0, stream};
}
__device__ inline int own_column() {
  return static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kPiece;
}

}  // namespace lomu::cuda

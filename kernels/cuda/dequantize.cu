// A thread makes eight neighbouring elements of a row, which lie in one block, and stores them in one access of bf16 or
// two of float. Its share of a block's scales and bits it loads by itself, two bytes at a time, for that is how blocks
// of 18 or 34 bytes are aligned; the cache gives neighbours the same lines.
//
// Bound: the bus that brings the rows. A billion weights of Q4_0 are 0.56 GB of blocks, 10 ms and more over PCIe 5, and
// take 2 GB of bf16, 0.8 ms of an H100's memory at full rate.
//
// Bits: the products of a block's scales and of scales and weights have at most 23 significant bits, so float32 holds
// them exactly, and a sum is one rounding on the host whether it fuses or not. Here the roundings are written out, so
// that no compiler's choice matters.
#include "kernels/cuda/dequantize.h"
#include "kernels/cuda/row_access.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr unsigned kMaxThreads = 256;

using Bytes = const std::uint8_t*;

template <Encoding E>
constexpr BlockSize kBlock = block_of(E);

/// Two bytes at an even address.
__device__ inline std::uint32_t load_pair(Bytes p) {
  return *reinterpret_cast<const std::uint16_t*>(p);
}
__device__ inline float load_half(Bytes p) {
  return half_to_float(static_cast<std::uint16_t>(load_pair(p)));
}

/// Eight bytes at an even address.
struct EightBytes {
  std::uint32_t low, high;
  __device__ explicit EightBytes(Bytes p)
      : low(load_pair(p) | load_pair(p + 2) << 16), high(load_pair(p + 4) | load_pair(p + 6) << 16) {}
  /// `bits` (a mask) of byte i, from bit `shift` on.
  __device__ int field(int i, int shift, unsigned bits) const {
    const std::uint32_t word = i < 4 ? low : high;
    return static_cast<int>(word >> (i % 4 * 8 + shift) & bits);
  }
};

// The layouts are drawn in kernels/dequantize.cpp. Each of these gives elements [8 piece, 8 piece + 8) of one block.

__device__ inline void take_q8_0(Bytes block, int piece, float (&x)[kPiece]) {
  const float d = load_half(block);
  const EightBytes q(block + 2 + 8 * piece);
#pragma unroll
  for (int i = 0; i < kPiece; ++i)
    x[i] = __fmul_rn(d, static_cast<float>(static_cast<std::int8_t>(q.field(i, 0, 255))));
}

/// Q4_0 and Q5_0 (x = d (q - centre)), Q4_1 and Q5_1 (x = d q + m).
template <bool HasMin, bool HasFifthBit>
__device__ inline void take_nibbles(Bytes block, int piece, float (&x)[kPiece]) {
  constexpr int kFifth = HasMin ? 4 : 2, kNibbles = kFifth + (HasFifthBit ? 4 : 0), kCentre = HasFifthBit ? 16 : 8;
  const float d = load_half(block);
  const EightBytes bytes(block + kNibbles + piece % 2 * 8);
  // Bit 8 piece + i is that of element i. The address of one byte may be odd; that of its pair is even.
  const std::uint32_t fifth = HasFifthBit ? load_pair(block + kFifth + piece / 2 * 2) >> piece % 2 * 8 : 0;
  const float m = HasMin ? load_half(block + 2) : 0.0f;
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    const int q = bytes.field(i, piece / 2 * 4, 15) | static_cast<int>(fifth >> i & 1) << 4;
    x[i] = HasMin ? __fadd_rn(__fmul_rn(d, static_cast<float>(q)), m) : __fmul_rn(d, static_cast<float>(q - kCentre));
  }
}

__device__ inline void take_q4_k(Bytes block, int piece, float (&x)[kPiece]) {
  const int j = piece / 4;  // the sub-block
  const Bytes packed = block + 4;
  int scale, min;
  if (j < 4) {
    scale = packed[j] & 63;
    min = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
    min = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
  }
  const float d = __fmul_rn(load_half(block), static_cast<float>(scale));
  const float m = __fmul_rn(load_half(block + 2), static_cast<float>(min));
  const EightBytes bytes(block + 16 + j / 2 * 32 + piece % 4 * 8);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    x[i] = __fsub_rn(__fmul_rn(d, static_cast<float>(bytes.field(i, j % 2 * 4, 15))), m);
  }
}

__device__ inline void take_q6_k(Bytes block, int piece, float (&x)[kPiece]) {
  const int half = piece / 16, quarter = piece / 4 % 4, first = piece % 4 * 8;  // of 128; of the half; in the quarter
  const EightBytes low(block + 64 * half + quarter % 2 * 32 + first);
  const EightBytes high(block + 128 + 32 * half + first);
  const auto scale = static_cast<std::int8_t>(block[192 + 8 * half + 2 * quarter + first / 16]);
  const float d = __fmul_rn(load_half(block + 208), static_cast<float>(scale));
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    const int q = low.field(i, quarter / 2 * 4, 15) | high.field(i, quarter * 2, 3) << 4;
    x[i] = __fmul_rn(d, static_cast<float>(q - 32));
  }
}

template <Encoding E>
__device__ inline void take_block_piece(Bytes block, int piece, float (&x)[kPiece]) {
  if constexpr (E == Encoding::kQ8_0) take_q8_0(block, piece, x);
  if constexpr (E == Encoding::kQ4_0) take_nibbles<false, false>(block, piece, x);
  if constexpr (E == Encoding::kQ4_1) take_nibbles<true, false>(block, piece, x);
  if constexpr (E == Encoding::kQ5_0) take_nibbles<false, true>(block, piece, x);
  if constexpr (E == Encoding::kQ5_1) take_nibbles<true, true>(block, piece, x);
  if constexpr (E == Encoding::kQ4_K) take_q4_k(block, piece, x);
  if constexpr (E == Encoding::kQ6_K) take_q6_k(block, piece, x);
}

/// Columns [col, col + 8) of a row of plain numbers, with zeros from `cols` on.
template <Encoding E>
__device__ inline void take_plain_piece(Bytes row, int col, int cols, float (&x)[kPiece]) {
#pragma unroll
  for (int i = 0; i < kPiece; ++i) {
    if (col + i >= cols) {
      x[i] = 0.0f;
    } else if constexpr (E == Encoding::kF32) {
      x[i] = reinterpret_cast<const float*>(row)[col + i];
    } else if constexpr (E == Encoding::kF16) {
      x[i] = load_half(row + 2 * (col + i));
    } else {
      x[i] = __uint_as_float(load_pair(row + 2 * (col + i)) << 16);
    }
  }
}

template <Encoding E, class T>
__global__ void __launch_bounds__(kMaxThreads)
    dequantize_kernel(Bytes from, std::int64_t row_bytes, DeviceRows<T> to, bool to_is_wide, int cols, int width) {
  const int col = own_column();
  if (col >= width) return;
  const Bytes row = from + static_cast<std::int64_t>(blockIdx.x) * row_bytes;
  constexpr int kElements = static_cast<int>(kBlock<E>.elements), kBytes = static_cast<int>(kBlock<E>.bytes);
  float x[kPiece] = {};
  if constexpr (kElements == 1) {
    take_plain_piece<E>(row, col, cols, x);
  } else if (col < cols) {
    take_block_piece<E>(row + static_cast<std::int64_t>(col / kElements) * kBytes, col % kElements / kPiece, x);
  }
  T* out = to.data + static_cast<std::int64_t>(blockIdx.x) * to.ld;
  if (to_is_wide) {
    store_piece<true>(out, col, width, x);
  } else {
    store_piece<false>(out, col, width, x);
  }
}

template <class T>
auto kernel_for(Encoding encoding) {
  switch (encoding) {
    case Encoding::kF32: return dequantize_kernel<Encoding::kF32, T>;
    case Encoding::kF16: return dequantize_kernel<Encoding::kF16, T>;
    case Encoding::kBF16: return dequantize_kernel<Encoding::kBF16, T>;
    case Encoding::kQ8_0: return dequantize_kernel<Encoding::kQ8_0, T>;
    case Encoding::kQ4_0: return dequantize_kernel<Encoding::kQ4_0, T>;
    case Encoding::kQ4_1: return dequantize_kernel<Encoding::kQ4_1, T>;
    case Encoding::kQ5_0: return dequantize_kernel<Encoding::kQ5_0, T>;
    case Encoding::kQ5_1: return dequantize_kernel<Encoding::kQ5_1, T>;
    case Encoding::kQ4_K: return dequantize_kernel<Encoding::kQ4_K, T>;
    case Encoding::kQ6_K: return dequantize_kernel<Encoding::kQ6_K, T>;
  }
  throw Error("rows of an unknown encoding");
}

}  // namespace

template <class T>
void dequantize(const EncodedRows& from, DeviceRows<T> to, std::int64_t zeros, Stream stream) {
  const std::int64_t width = from.cols + zeros;
  if (from.rows == 0 || width == 0) return;
  launch(kernel_for<Element<T>>(from.encoding), thread_per_piece(from.rows, width, stream),
         reinterpret_cast<Bytes>(from.data), from.row_bytes(), element_rows(to), are_wide(to),
         static_cast<int>(from.cols), static_cast<int>(width));
}

template void dequantize(const EncodedRows&, DeviceRows<BF16>, std::int64_t, Stream);
template void dequantize(const EncodedRows&, DeviceRows<float>, std::int64_t, Stream);

}  // namespace lomu::cuda

#include "kernels/cpu/skinny.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace lomu::cpu {
namespace {

constexpr std::int64_t kRows = 8;  // rows of G at a time: 8 x 32 sums fill half of the 32 vector registers

std::int64_t padded(std::int64_t r) {
  return (r + kRows - 1) / kRows * kRows;
}

/// X of one step of the sum, copied so that a ragged edge needs no masks.
template <class T>
void copy_columns(const T* x, std::int64_t cols, T* edge) {
  std::copy_n(x, cols, edge);
}

void block_f32(const float* packed, std::int64_t tokens, std::int64_t width, const float* x, std::int64_t ldx,
               std::int64_t cols, float* g) {
  std::array<std::array<float, kSkinnyColumns>, kRows> sums{};
  std::array<float, kSkinnyColumns> edge{};
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = x + t * ldx;
    if (cols < kSkinnyColumns) {
      copy_columns(row, cols, edge.data());
      row = edge.data();
    }
    for (std::size_t i = 0; i < kRows; ++i) {
      const float l = packed[t * width + static_cast<std::int64_t>(i)];
#pragma omp simd
      for (std::size_t j = 0; j < kSkinnyColumns; ++j) sums[i][j] += l * row[j];
    }
  }
  std::memcpy(g, sums.data(), sizeof(sums));
}

#ifdef __AVX512BF16__
/// Two tokens at a time: unpack interleaves their rows into bf16 pairs, 16 bits from each, lane by lane of 128 bits;
/// the columns come out permuted (0-3, 8-11, ... | 4-7, 12-15, ...) and are put in order once at the end.
void block_bf16(const std::uint32_t* packed, std::int64_t tokens, std::int64_t width, const BF16* x, std::int64_t ldx,
                std::int64_t cols, float* g) {
  __m512 low[kRows];  // not std::array: a template argument would lose the type's vector attribute
  __m512 high[kRows];
  for (std::size_t i = 0; i < kRows; ++i) low[i] = high[i] = _mm512_setzero_ps();
  const __mmask32 mask = cols >= kSkinnyColumns ? ~__mmask32{0} : (__mmask32{1} << cols) - 1;
  const std::int64_t pairs = (tokens + 1) / 2;
  for (std::int64_t p = 0; p < pairs; ++p) {
    const __m512i first = _mm512_maskz_loadu_epi16(mask, x + 2 * p * ldx);
    const bool has_second = 2 * p + 1 < tokens;
    const __m512i second = has_second ? _mm512_maskz_loadu_epi16(mask, x + (2 * p + 1) * ldx) : _mm512_setzero_si512();
    const auto lo = std::bit_cast<__m512bh>(_mm512_unpacklo_epi16(first, second));
    const auto hi = std::bit_cast<__m512bh>(_mm512_unpackhi_epi16(first, second));
    const std::uint32_t* l = packed + p * width;
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kRows; ++i) {
      const auto pair = std::bit_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(l[i])));
      low[i] = _mm512_dpbf16_ps(low[i], pair, lo);
      high[i] = _mm512_dpbf16_ps(high[i], pair, hi);
    }
  }
  for (std::size_t i = 0; i < kRows; ++i) {
    alignas(64) std::array<float, 16> a{};
    alignas(64) std::array<float, 16> b{};
    _mm512_store_ps(a.data(), low[i]);
    _mm512_store_ps(b.data(), high[i]);
    float* out = g + static_cast<std::int64_t>(i) * kSkinnyColumns;
    for (std::size_t lane = 0; lane < 4; ++lane) {
      std::copy_n(&a[lane * 4], 4, out + lane * 8);
      std::copy_n(&b[lane * 4], 4, out + lane * 8 + 4);
    }
  }
}
#else
void block_bf16(const std::uint32_t* packed, std::int64_t tokens, std::int64_t width, const BF16* x, std::int64_t ldx,
                std::int64_t cols, float* g) {
  std::array<std::array<float, kSkinnyColumns>, kRows> sums{};
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::size_t i = 0; i < kRows; ++i) {
      const std::uint32_t pair = packed[t / 2 * width + static_cast<std::int64_t>(i)];
      const float l = std::bit_cast<float>(t % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
      for (std::int64_t j = 0; j < cols; ++j)
        sums[i][static_cast<std::size_t>(j)] += l * static_cast<float>(x[t * ldx + j]);
    }
  }
  std::memcpy(g, sums.data(), sizeof(sums));
}
#endif

}  // namespace

std::int64_t skinny_pack_size(std::int64_t tokens, std::int64_t r) {
  return (tokens + 1) / 2 * 2 * padded(r);
}

std::int64_t skinny_result_size(std::int64_t r) {
  return padded(r) * kSkinnyColumns;
}

void skinny_pack(const BF16* l, std::int64_t ld, std::int64_t tokens, std::int64_t r, BF16* packed) {
  const std::int64_t width = padded(r);
  std::fill_n(packed, skinny_pack_size(tokens, r), BF16());
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t i = 0; i < r; ++i) packed[(t / 2 * width + i) * 2 + t % 2] = l[t * ld + i];
  }
}

void skinny_pack(const float* l, std::int64_t ld, std::int64_t tokens, std::int64_t r, float* packed) {
  const std::int64_t width = padded(r);
  std::fill_n(packed, skinny_pack_size(tokens, r), 0.0f);
  for (std::int64_t t = 0; t < tokens; ++t) std::copy_n(l + t * ld, r, packed + t * width);
}

void skinny_gradient(const BF16* packed, std::int64_t tokens, std::int64_t r, const BF16* x, std::int64_t ldx,
                     std::int64_t cols, float* g) {
  const auto* pairs = reinterpret_cast<const std::uint32_t*>(packed);
  for (std::int64_t i = 0; i < r; i += kRows) {
    block_bf16(pairs + i, tokens, padded(r), x, ldx, cols, g + i * kSkinnyColumns);
  }
}

void skinny_gradient(const float* packed, std::int64_t tokens, std::int64_t r, const float* x, std::int64_t ldx,
                     std::int64_t cols, float* g) {
  for (std::int64_t i = 0; i < r; i += kRows) {
    block_f32(packed + i, tokens, padded(r), x, ldx, cols, g + i * kSkinnyColumns);
  }
}

}  // namespace lomu::cpu

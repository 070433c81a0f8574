// Skinny gradients: G[r, n] = L^T X with L [T, r] and X [T, n], r small, summed over all tokens in order. A matrix
// product would first have to pack X, which is read once only; this kernel interleaves pairs of rows in registers.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace lomu::cpu {

inline constexpr std::int64_t kSkinnyColumns = 32;  ///< columns of G that one call computes

/// Elements of the packed form of L [tokens, r].
std::int64_t skinny_pack_size(std::int64_t tokens, std::int64_t r);

/// Packs L for skinny_gradient. BF16: rows in pairs, a missing last row as zero.
void skinny_pack(const BF16* l, std::int64_t ld, std::int64_t tokens, std::int64_t r, BF16* packed);
void skinny_pack(const float* l, std::int64_t ld, std::int64_t tokens, std::int64_t r, float* packed);

/// Floats that skinny_gradient writes: r rounded up to whole blocks of rows, times kSkinnyColumns.
std::int64_t skinny_result_size(std::int64_t r);

/// g[i * kSkinnyColumns + j] = sum over t of L[t, i] X[t, j], i < r, j < cols <= kSkinnyColumns. x points at the first
/// column. f32 accumulation, tokens in order.
void skinny_gradient(const BF16* packed, std::int64_t tokens, std::int64_t r, const BF16* x, std::int64_t ldx,
                     std::int64_t cols, float* g);
void skinny_gradient(const float* packed, std::int64_t tokens, std::int64_t r, const float* x, std::int64_t ldx,
                     std::int64_t cols, float* g);

}  // namespace lomu::cpu

// Attention backward, five products a tile, scores held transposed: S^T = K Q^T for 64 keys against up to 512 queries.
// Then the weights P^T and their gradients dS^T are left-hand sides for dV and dK as they stand, and dQ^T = K^T dS^T
// needs dS^T as a right-hand side, a cheap interleave of its rows. One unit is one query head of one sequence; the
// heads that share keys add their dK and dV in order afterwards, so nothing depends on the number of threads.
#include <limits>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/vector_math.h"

namespace lomu::cpu {
namespace {

enum Slot : std::size_t {
  kQueryT,
  kDoutT,
  kQueryP,
  kDoutP,
  kStats,
  kScores,
  kDScores,
  kWeights,
  kDWeights,
  kKeys,
  kDQueryT,
  kAccumulate,
  kPackedDScores
};
enum TeamSlot : std::size_t { kHeadGradients = 8 };

/// One head of one sequence, packed once and used by every tile of keys.
template <class T>
struct PackedQueries {
  PanelShape transposed;  ///< [d, L]: right-hand side of K Q^T and V dO^T
  PanelShape plain;       ///< [L, d]: right-hand side of P^T dO and dS^T Q
  T* query_t;
  T* dout_t;
  T* query;
  T* dout;
  float* lse;    ///< [L rounded up], +inf past the end: weight 0
  float* delta;  ///< sum over features of dO * O
};

template <class T>
PackedQueries<T> pack_queries(const SequenceSpan& span, std::int64_t head, std::int64_t d, const Tensor& q,
                              const Tensor& out, const Tensor& lse, const Tensor& dout, Worker& worker,
                              Memory& memory) {
  const std::int64_t length = span.query_length;
  const std::int64_t padded = round_up(length, kPanel);
  PackedQueries<T> p{};
  p.transposed = {d, padded, kDTypeOf<T>};
  p.plain = {padded, d, kDTypeOf<T>};
  const std::int64_t wide = p.transposed.panels() * p.transposed.panel_stride();
  const std::int64_t tall = p.plain.panels() * p.plain.panel_stride();
  p.query_t = worker.scratch<T>(kQueryT, wide, memory);
  p.dout_t = worker.scratch<T>(kDoutT, wide, memory);
  p.query = worker.scratch<T>(kQueryP, tall, memory);
  p.dout = worker.scratch<T>(kDoutP, tall, memory);
  p.lse = worker.scratch<float>(kStats, 2 * padded + 2 * d, memory);
  p.delta = p.lse + padded;
  float* wide_o = p.delta + padded;
  float* wide_do = wide_o + d;
  const T* q0 = q.row<T>(span.query_begin) + head * d;
  const T* do0 = dout.row<T>(span.query_begin) + head * d;
  pack_transposed(q0, q.ld, length, d, p.query_t);
  pack_transposed(do0, dout.ld, length, d, p.dout_t);
  pack_plain(q0, q.ld, length, d, p.query);
  pack_plain(do0, dout.ld, length, d, p.dout);
  for (std::int64_t i = 0; i < length; ++i) {
    const T* o = out.row<T>(span.query_begin + i) + head * d;
    p.lse[i] = lse.row<float>(span.query_begin + i)[head];
    p.delta[i] = dot(as_f32(o, wide_o, d), as_f32(do0 + i * dout.ld, wide_do, d), d);
  }
  std::fill(p.lse + length, p.lse + padded, std::numeric_limits<float>::infinity());
  std::fill(p.delta + length, p.delta + padded, 0.0f);
  return p;
}

/// Rows of S^T and dP^T -> P^T and dS^T where query i sees the key, zero elsewhere. [begin, end) is the visible range.
template <class T>
void differentiate_row(float* s, float* dp, std::int64_t width, std::int64_t begin, std::int64_t end, const float* lse,
                       const float* delta, float scale, T* weights, T* dweights) {
  std::fill_n(s, begin, 0.0f);
  std::fill_n(dp, begin, 0.0f);
#pragma omp simd
  for (std::int64_t i = begin; i < end; ++i) {
    const float p = fast_exp(s[i] * scale - lse[i]);
    s[i] = p;
    dp[i] = p * (dp[i] - delta[i]) * scale;
  }
  std::fill(s + end, s + width, 0.0f);
  std::fill(dp + end, dp + width, 0.0f);
  narrow(s, weights, width);
  narrow(dp, dweights, width);
}

/// Right-hand side [64, width] from rows [64][width]: panels of 64 columns.
inline void interleave(const BF16* rows, std::int64_t width, BF16* panels) {
  for (std::int64_t col = 0; col < width; col += kPanel) {
    auto* panel = reinterpret_cast<std::uint32_t*>(panels + col * kTileRows);
    for (std::int64_t p = 0; p < kTileRows / 2; ++p) {
      const BF16* even = rows + 2 * p * width + col;
      const BF16* odd = even + width;
#pragma omp simd
      for (std::int64_t j = 0; j < kPanel; ++j) {
        panel[p * kPanel + j] = static_cast<std::uint32_t>(even[j].bits) | static_cast<std::uint32_t>(odd[j].bits)
                                                                               << 16;
      }
    }
  }
}
inline void interleave(const float* rows, std::int64_t width, float* panels) {
  for (std::int64_t col = 0; col < width; col += kPanel) {
    for (std::int64_t p = 0; p < kTileRows; ++p) {
      std::copy_n(rows + p * width + col, kPanel, panels + col * kTileRows + p * kPanel);
    }
  }
}

/// y[i][j] = x[j][i] for i < rows, j < cols, in blocks that stay in registers and first-level cache.
template <class X, class Y>
void transpose(const X* x, std::int64_t ldx, std::int64_t rows, std::int64_t cols, Y* y, std::int64_t ldy) {
  constexpr std::int64_t kBlock = 16;
  for (std::int64_t i0 = 0; i0 < rows; i0 += kBlock) {
    const std::int64_t i1 = std::min(rows, i0 + kBlock);
    for (std::int64_t j0 = 0; j0 < cols; j0 += kBlock) {
      const std::int64_t j1 = std::min(cols, j0 + kBlock);
      for (std::int64_t i = i0; i < i1; ++i) {
        for (std::int64_t j = j0; j < j1; ++j) y[i * ldy + j] = static_cast<Y>(x[j * ldx + i]);
      }
    }
  }
}

void copy_rows(const SplitRows& tile, std::int64_t rows, float* to) {
  for (std::int64_t i = 0; i < rows; ++i) {
    tile.for_pieces(i, [&](const float* piece, std::int64_t first, std::int64_t width) {
      std::copy_n(piece, width, to + i * tile.cols + first);
    });
  }
}

/// Gradients of one query head: dq into its place, dk and dv (f32, [L, d]) into `dk`, `dv`.
template <class T>
void head_backward(const AttentionShape& shape, const SequenceSpan& span, std::int64_t head, const Tensor& q,
                   const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, const Tensor& dout,
                   const Tensor& dq, float* dk, float* dv, Worker& worker, Memory& memory) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t length = span.query_length;
  const std::int64_t padded = round_up(length, kPanel);
  const std::int64_t kv = head / (shape.heads / shape.kv_heads) * d;
  const auto scale = static_cast<float>(shape.scale);
  const PackedQueries<T> packed = pack_queries<T>(span, head, d, q, out, lse, dout, worker, memory);

  float* s = worker.scratch<float>(kScores, kTileRows * kChunk, memory);
  float* dp = worker.scratch<float>(kDScores, kTileRows * kChunk, memory);
  T* weights = worker.scratch<T>(kWeights, kTileRows * kChunk, memory);
  T* dweights = worker.scratch<T>(kDWeights, kTileRows * kChunk, memory);
  T* packed_ds = worker.scratch<T>(kPackedDScores, kTileRows * kChunk, memory);
  T* key = worker.scratch<T>(kKeys, 3 * kTileRows * d, memory);
  T* value = key + kTileRows * d;
  T* key_t = value + kTileRows * d;
  float* dq_t = worker.scratch<float>(kDQueryT, d * padded, memory);  // [d, 64] for each 64 queries
  std::fill_n(dq_t, d * padded, 0.0f);
  const SplitRows sum_k{worker.scratch<float>(kAccumulate, 2 * kTileRows * d, memory), d};
  const SplitRows sum_v{sum_k.data + kTileRows * d, d};

  for (std::int64_t key0 = 0; key0 < length; key0 += kTileRows) {
    const std::int64_t rows = std::min(kTileRows, length - key0);
    const std::int64_t m = padded_rows(rows);
    copy_tile(k.row<T>(span.key_begin + key0) + kv, k.ld, rows, d, key);
    copy_tile(v.row<T>(span.key_begin + key0) + kv, v.ld, rows, d, value);
    std::fill(key + rows * d, key + kTileRows * d, T{});
    transpose(key, d, d, kTileRows, key_t, kTileRows);
    const std::int64_t last = shape.window > 0 ? std::min(length, key0 + rows - 1 + shape.window) : length;
    for (std::int64_t q0 = key0; q0 < last; q0 += kChunk) {
      const std::int64_t width = std::min(kChunk, round_up(last - q0, kPanel));
      const std::int64_t panel = q0 / kPanel * packed.transposed.panel_stride();
      worker.gemm.multiply(kDTypeOf<T>, m, width, d, key, packed.query_t + panel, s, false);
      worker.gemm.multiply(kDTypeOf<T>, m, width, d, value, packed.dout_t + panel, dp, false);
      for (std::int64_t j = 0; j < rows; ++j) {
        const std::int64_t begin = std::clamp<std::int64_t>(key0 + j - q0, 0, width);
        const std::int64_t end = std::clamp<std::int64_t>(
            (shape.window > 0 ? std::min(length, key0 + j + shape.window) : length) - q0, begin, width);
        differentiate_row(s + j * width, dp + j * width, width, begin, end, packed.lse + q0, packed.delta + q0, scale,
                          weights + j * width, dweights + j * width);
      }
      std::fill(weights + rows * width, weights + m * width, T{});
      std::fill(dweights + rows * width, dweights + kTileRows * width, T{});
      const bool more = q0 > key0;
      multiply_rows(worker.gemm, m, width, weights, packed.plain, packed.dout, q0, sum_v.data, more);
      multiply_rows(worker.gemm, m, width, dweights, packed.plain, packed.query, q0, sum_k.data, more);
      interleave(dweights, width, packed_ds);
      for (std::int64_t col = 0; col < width; col += kPanel) {
        worker.gemm.multiply(kDTypeOf<T>, d, kPanel, kTileRows, key_t, packed_ds + col * kTileRows,
                             dq_t + (q0 + col) * d, true);
      }
    }
    copy_rows(sum_k, rows, dk + key0 * d);
    copy_rows(sum_v, rows, dv + key0 * d);
  }
  for (std::int64_t i = 0; i < length; i += kPanel) {
    transpose(dq_t + i * d, kPanel, std::min(kPanel, length - i), d, dq.row<T>(span.query_begin + i) + head * d, dq.ld);
  }
}

}  // namespace

template <class T>
void attention_backward(Team& team, const AttentionShape& shape, std::span<const SequenceSpan> sequences,
                        const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                        const Tensor& dout, const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.heads / shape.kv_heads;
  std::vector<std::int64_t> offsets;  // of each sequence, in rows
  std::int64_t total = 0;
  for (const SequenceSpan& span : sequences) {
    offsets.push_back(total);
    total += span.query_length;
  }
  float* dk_heads = team.scratch<float>(kHeadGradients, 2 * shape.heads * total * d);
  float* dv_heads = dk_heads + shape.heads * total * d;
  const auto units = static_cast<std::int64_t>(sequences.size()) * shape.heads;
  team.for_each(units, [&](std::int64_t unit, Worker& worker) {
    const auto i = static_cast<std::size_t>(unit / shape.heads);
    const std::int64_t head = unit % shape.heads;
    const std::int64_t at = (head * total + offsets[i]) * d;
    head_backward<T>(shape, sequences[i], head, q, k, v, out, lse, dout, dq, dk_heads + at, dv_heads + at, worker,
                     team.memory());
  });
  team.for_each(static_cast<std::int64_t>(sequences.size()) * shape.kv_heads, [&](std::int64_t unit, Worker& worker) {
    const auto i = static_cast<std::size_t>(unit / shape.kv_heads);
    const std::int64_t kv = unit % shape.kv_heads;
    float* sum = worker.scratch<float>(kScores, d, team.memory());
    const auto add_heads = [&](const float* heads, const Tensor& target) {
      for (std::int64_t t = 0; t < sequences[i].query_length; ++t) {
        std::copy_n(heads + (kv * group * total + offsets[i] + t) * d, d, sum);
        for (std::int64_t h = 1; h < group; ++h) {
          const float* more = heads + ((kv * group + h) * total + offsets[i] + t) * d;
#pragma omp simd
          for (std::int64_t c = 0; c < d; ++c) sum[c] += more[c];
        }
        narrow(sum, target.row<T>(sequences[i].key_begin + t) + kv * d, d);
      }
    };
    add_heads(dk_heads, dk);
    add_heads(dv_heads, dv);
  });
}

template <class T>
void attention_backward_scratch(TeamScratch& scratch, const AttentionShape& shape, std::int64_t tokens,
                                std::int64_t document) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t padded = round_up(document, kPanel);
  const PanelShape transposed{d, padded, kDTypeOf<T>};
  const PanelShape plain{padded, d, kDTypeOf<T>};
  for (const Slot slot : {kQueryT, kDoutT})
    scratch.worker.need<T>(slot, transposed.panels() * transposed.panel_stride());
  for (const Slot slot : {kQueryP, kDoutP}) scratch.worker.need<T>(slot, plain.panels() * plain.panel_stride());
  scratch.worker.need<float>(kStats, 2 * padded + 2 * d);
  for (const Slot slot : {kScores, kDScores}) scratch.worker.need<float>(slot, std::max(kTileRows * kChunk, d));
  for (const Slot slot : {kWeights, kDWeights, kPackedDScores}) scratch.worker.need<T>(slot, kTileRows * kChunk);
  scratch.worker.need<T>(kKeys, 3 * kTileRows * d);
  scratch.worker.need<float>(kDQueryT, d * padded);
  scratch.worker.need<float>(kAccumulate, 2 * kTileRows * d);
  scratch.team.need<float>(kHeadGradients, 2 * shape.heads * tokens * d);
}

template void attention_backward_scratch<float>(TeamScratch&, const AttentionShape&, std::int64_t, std::int64_t);
template void attention_backward_scratch<BF16>(TeamScratch&, const AttentionShape&, std::int64_t, std::int64_t);
template void attention_backward<float>(Team&, const AttentionShape&, std::span<const SequenceSpan>, const Tensor&,
                                        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                        const Tensor&, const Tensor&, const Tensor&);
template void attention_backward<BF16>(Team&, const AttentionShape&, std::span<const SequenceSpan>, const Tensor&,
                                       const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                       const Tensor&, const Tensor&, const Tensor&);

}  // namespace lomu::cpu

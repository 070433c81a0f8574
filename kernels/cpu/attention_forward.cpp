#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/vector_math.h"

namespace lomu::cpu {
namespace {

constexpr std::int64_t kFewQueries = 8;  // below: packing the keys costs more than it saves (generation)

enum Slot : std::size_t { kQuery, kScores, kWeights, kOut, kWide };
enum TeamSlot : std::size_t { kKeys = 8, kValues = 9 };

/// First key that the query at position `position` sees.
std::int64_t first_key(const AttentionShape& shape, std::int64_t position) {
  return shape.window > 0 ? std::max<std::int64_t>(0, position - shape.window + 1) : 0;
}

/// One query after the other, keys read where they lie.
template <class T>
void few_queries(const AttentionShape& shape, const SequenceSpan& span, std::int64_t head, const Tensor& q,
                 const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, Worker& worker,
                 Memory& memory) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t kv = head / (shape.heads / shape.kv_heads) * d;
  float* weights = worker.scratch<float>(kScores, span.key_length, memory);
  float* wide = worker.scratch<float>(kWide, 3 * d, memory);
  float* sum_v = wide + 2 * d;
  for (std::int64_t i = 0; i < span.query_length; ++i) {
    const std::int64_t position = span.key_length - span.query_length + i;
    const std::int64_t first = first_key(shape, position);
    const float* query = as_f32(q.row<T>(span.query_begin + i) + head * d, wide, d);
    for (std::int64_t j = first; j <= position; ++j) {
      const float* key = as_f32(k.row<T>(span.key_begin + j) + kv, wide + d, d);
      weights[j] = dot(query, key, d) * static_cast<float>(shape.scale);
    }
    const std::int64_t count = position - first + 1;
    const float top = maximum(weights + first, count);
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (std::int64_t j = first; j <= position; ++j) {
      weights[j] = fast_exp(weights[j] - top);
      total += weights[j];
    }
    std::fill_n(sum_v, d, 0.0f);
    for (std::int64_t j = first; j <= position; ++j) {
      const float* value = as_f32(v.row<T>(span.key_begin + j) + kv, wide + d, d);
      const float w = weights[j] / total;
#pragma omp simd
      for (std::int64_t c = 0; c < d; ++c) sum_v[c] += w * value[c];
    }
    narrow(sum_v, out.row<T>(span.query_begin + i) + head * d, d);
    if (!lse.empty()) lse.row<float>(span.query_begin + i)[head] = top + std::log(total);
  }
}

/// The running softmax of one query row over chunks of keys.
struct RowState {
  float top = -std::numeric_limits<float>::infinity();
  float total = 0;
};

/// Turns one row of scores [0, width) into unnormalised weights where [begin, end) is visible; returns the factor by
/// which what was summed before must shrink.
template <class T>
float soften_row(float* scores, std::int64_t width, std::int64_t begin, std::int64_t end, float scale, RowState& state,
                 T* weights) {
  if (begin >= end) {
    std::fill_n(weights, width, T{});
    return 1.0f;
  }
  const float top = std::max(state.top, maximum(scores + begin, end - begin) * scale);
  std::fill_n(scores, begin, 0.0f);
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (std::int64_t j = begin; j < end; ++j) {
    scores[j] = fast_exp(scores[j] * scale - top);
    total += scores[j];
  }
  std::fill(scores + end, scores + width, 0.0f);
  narrow(scores, weights, width);
  const float shrink = fast_exp(state.top - top);
  state.total = state.total * shrink + total;
  state.top = top;
  return shrink;
}

void scale_row(const SplitRows& tile, std::int64_t i, float factor) {
  tile.for_pieces(i, [factor](float* piece, std::int64_t, std::int64_t width) {
#pragma omp simd
    for (std::int64_t c = 0; c < width; ++c) piece[c] *= factor;
  });
}

/// One unit of work: up to 64 queries of one head of one sequence.
struct QueryTile {
  std::size_t sequence;
  std::int64_t head;
  std::int64_t first;
};

template <class T>
struct PackedHead {
  PanelShape keys_shape, values_shape;
  std::int64_t keys = 0, values = 0;  ///< offsets in the team's scratch
};

template <class T>
void query_tile(const AttentionShape& shape, const SequenceSpan& span, const QueryTile& tile,
                const PackedHead<T>& packed, const T* keys, const T* values, const Tensor& q, const Tensor& out,
                const Tensor& lse, Worker& worker, Memory& memory) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t rows = std::min(kTileRows, span.query_length - tile.first);
  const std::int64_t m = padded_rows(rows);
  const std::int64_t row0 = span.query_begin + tile.first;
  const std::int64_t position0 = span.key_length - span.query_length + tile.first;
  T* query = worker.scratch<T>(kQuery, kTileRows * d, memory);
  float* scores = worker.scratch<float>(kScores, kTileRows * kChunk, memory);
  T* weights = worker.scratch<T>(kWeights, kTileRows * kChunk, memory);
  const SplitRows sums{worker.scratch<float>(kOut, kTileRows * d, memory), d};
  copy_tile(q.row<T>(row0) + tile.head * d, q.ld, rows, d, query);
  RowState states[kTileRows];

  const std::int64_t begin = first_key(shape, position0) / kPanel * kPanel;
  const std::int64_t end = position0 + rows;
  for (std::int64_t start = begin; start < end; start += kChunk) {
    const std::int64_t width = std::min(kChunk, round_up(end - start, kPanel));
    worker.gemm.multiply(kDTypeOf<T>, m, width, d, query, keys + start / kPanel * packed.keys_shape.panel_stride(),
                         scores, false);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t visible = std::min(width, position0 + i + 1 - start);
      const std::int64_t hidden = std::clamp<std::int64_t>(first_key(shape, position0 + i) - start, 0, width);
      RowState& state = states[i];
      const float shrink = soften_row(scores + i * width, width, hidden, visible, static_cast<float>(shape.scale),
                                      state, weights + i * width);
      if (start > begin && shrink != 1.0f) scale_row(sums, i, shrink);
    }
    std::fill(weights + rows * width, weights + m * width, T{});
    multiply_rows(worker.gemm, m, width, weights, packed.values_shape, values, start, sums.data, start > begin);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    scale_row(sums, i, 1.0f / states[i].total);
    T* row = out.row<T>(row0 + i) + tile.head * d;
    sums.for_pieces(
        i, [row](const float* piece, std::int64_t first, std::int64_t width) { narrow(piece, row + first, width); });
    if (!lse.empty()) lse.row<float>(row0 + i)[tile.head] = states[i].top + std::log(states[i].total);
  }
}

}  // namespace

template <class T>
void attention(Team& team, const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
               const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse) {
  const std::int64_t d = shape.head_dim;
  std::vector<QueryTile> tiles;
  std::vector<PackedHead<T>> packed(sequences.size() * static_cast<std::size_t>(shape.kv_heads));
  std::int64_t keys_size = 0;
  std::int64_t values_size = 0;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const SequenceSpan& span = sequences[s];
    const bool few = span.query_length < kFewQueries;
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      for (std::int64_t first = 0; first < span.query_length; first += kTileRows) tiles.push_back({s, h, first});
    }
    for (std::int64_t h = 0; h < shape.kv_heads && !few; ++h) {
      PackedHead<T>& p = packed[s * static_cast<std::size_t>(shape.kv_heads) + static_cast<std::size_t>(h)];
      p.keys_shape = {d, round_up(span.key_length, kPanel), kDTypeOf<T>};
      p.values_shape = {round_up(span.key_length, kPanel), d, kDTypeOf<T>};
      p.keys = keys_size;
      p.values = values_size;
      keys_size += p.keys_shape.panels() * p.keys_shape.panel_stride();
      values_size += p.values_shape.panels() * p.values_shape.panel_stride();
    }
  }
  T* keys = team.scratch<T>(kKeys, keys_size);
  T* values = team.scratch<T>(kValues, values_size);
  team.for_each(static_cast<std::int64_t>(packed.size()), [&](std::int64_t i, Worker&) {
    const PackedHead<T>& p = packed[static_cast<std::size_t>(i)];
    if (p.keys_shape.n == 0) return;
    const SequenceSpan& span = sequences[static_cast<std::size_t>(i / shape.kv_heads)];
    const std::int64_t column = i % shape.kv_heads * d;
    pack_transposed(k.row<T>(span.key_begin) + column, k.ld, span.key_length, d, keys + p.keys);
    pack_plain(v.row<T>(span.key_begin) + column, v.ld, span.key_length, d, values + p.values);
  });
  // Long tiles first: the last rows of a sequence see the most keys, and a late long tile leaves threads idle.
  const auto count = static_cast<std::int64_t>(tiles.size());
  team.for_each(count, [&](std::int64_t i, Worker& worker) {
    const QueryTile& tile = tiles[static_cast<std::size_t>(count - 1 - i)];
    const SequenceSpan& span = sequences[tile.sequence];
    if (span.query_length < kFewQueries) {
      few_queries<T>(shape, span, tile.head, q, k, v, out, lse, worker, team.memory());
      return;
    }
    const std::int64_t kv = tile.head / (shape.heads / shape.kv_heads);
    const PackedHead<T>& p =
        packed[tile.sequence * static_cast<std::size_t>(shape.kv_heads) + static_cast<std::size_t>(kv)];
    query_tile<T>(shape, span, tile, p, keys + p.keys, values + p.values, q, out, lse, worker, team.memory());
  });
}

template <class T>
void attention_scratch(TeamScratch& scratch, const AttentionShape& shape, std::int64_t tokens, std::int64_t document) {
  const std::int64_t d = shape.head_dim;
  scratch.worker.need<T>(kQuery, kTileRows * d);
  scratch.worker.need<float>(kScores, std::max(kTileRows * kChunk, document));
  scratch.worker.need<T>(kWeights, kTileRows * kChunk);
  scratch.worker.need<float>(kOut, kTileRows * d);
  scratch.worker.need<float>(kWide, 3 * d);
  // Each sequence is rounded up to whole panels. Enough for sequences of a panel on average; many that are shorter make
  // the slot grow.
  const std::int64_t rows = 2 * round_up(tokens, kPanel);
  const auto size = [](const PanelShape& panels) { return panels.panels() * panels.panel_stride(); };
  scratch.team.need<T>(kKeys, shape.kv_heads * size({d, rows, kDTypeOf<T>}));
  scratch.team.need<T>(kValues, shape.kv_heads * size({rows, d, kDTypeOf<T>}));
}

template void attention_scratch<float>(TeamScratch&, const AttentionShape&, std::int64_t, std::int64_t);
template void attention_scratch<BF16>(TeamScratch&, const AttentionShape&, std::int64_t, std::int64_t);
template void attention<float>(Team&, const AttentionShape&, std::span<const SequenceSpan>, const Tensor&,
                               const Tensor&, const Tensor&, const Tensor&, const Tensor&);
template void attention<BF16>(Team&, const AttentionShape&, std::span<const SequenceSpan>, const Tensor&, const Tensor&,
                              const Tensor&, const Tensor&, const Tensor&);

}  // namespace lomu::cpu

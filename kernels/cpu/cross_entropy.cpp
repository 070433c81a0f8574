#include "kernels/cpu/cross_entropy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/vector_math.h"

namespace lomu::cpu {
namespace {

// The head's weights stream from memory once a chunk and direction. 128 rows by 49,152 words of f32 logits are 25 MB a
// thread: halving the rows would double that stream, doubling them would push the logits out of the last-level cache.
constexpr std::int64_t kChunkRows = 2 * kTileRows;
constexpr std::int64_t kVocabTile = 768;

enum Slot : std::size_t { kLogits, kGradient, kDx };

std::int64_t round_up(std::int64_t n) {
  return (n + kPanel - 1) / kPanel * kPanel;
}

/// Scratch of one thread for losses and gradients.
template <class T>
struct GradientScratch {
  float* logits;  ///< tile after tile of kVocabTile columns, each [rows, columns] without gaps
  T* gradient;    ///< of one tile
  float* sums;    ///< of dx: panel after panel, [rows, 64] each

  GradientScratch(Worker& worker, std::int64_t vocab, std::int64_t hidden, Memory& memory)
      : logits(worker.scratch<float>(kLogits, kChunkRows * vocab, memory)),
        gradient(worker.scratch<T>(kGradient, kChunkRows * kVocabTile, memory)),
        sums(worker.scratch<float>(kDx, kChunkRows * round_up(hidden), memory)) {}
};

/// The running log-sum-exp of a row.
struct RowState {
  float top = -std::numeric_limits<float>::infinity();
  float total = 0;
  void add(const float* x, std::int64_t n) {
    const float t = std::max(top, maximum(x, n));
    float sum_exp = 0;
#pragma omp simd reduction(+ : sum_exp)
    for (std::int64_t i = 0; i < n; ++i) sum_exp += fast_exp(x[i] - t);
    total = total * fast_exp(top - t) + sum_exp;
    top = t;
  }
  [[nodiscard]] float log_sum() const {
    return top + std::log(total);
  }
};

template <class T>
struct Chunk {
  const FrozenLinear& head;
  const Tensor& x;
  std::span<const std::int32_t> targets;
  std::int64_t row0, rows;

  [[nodiscard]] std::int64_t vocab() const { return head.outs[0]; }

  /// Logits of columns [first, first + count) for the chunk's rows: c [rows, count].
  void logits(TileGemm& gemm, std::int64_t first, std::int64_t count, float* c) const {
    const PanelShape shape{head.in, vocab(), kDTypeOf<T>};
    const T* w = forward_panels<T>(head, 0) + first / kPanel * shape.panel_stride();
    for (std::int64_t i = 0; i < rows; i += kTileRows) {
      gemm.multiply(kDTypeOf<T>, std::min(kTileRows, rows - i), count, head.in, x.row<T>(row0 + i), w, c + i * count,
                    false);
    }
  }
};

/// Losses alone: no logit outlives its tile.
template <class T>
void evaluate(const Chunk<T>& chunk, const Tensor& losses, Worker& worker, Memory& memory) {
  float* c = worker.scratch<float>(kLogits, kChunkRows * kVocabTile, memory);
  std::array<RowState, kChunkRows> states;
  std::array<float, kChunkRows> wanted{};
  for (std::int64_t first = 0; first < chunk.vocab(); first += kVocabTile) {
    const std::int64_t count = std::min(kVocabTile, chunk.vocab() - first);
    chunk.logits(worker.gemm, first, count, c);
    for (std::int64_t i = 0; i < chunk.rows; ++i) {
      states[static_cast<std::size_t>(i)].add(c + i * count, count);
      const std::int64_t target = chunk.targets[static_cast<std::size_t>(chunk.row0 + i)] - first;
      if (target >= 0 && target < count) wanted[static_cast<std::size_t>(i)] = c[i * count + target];
    }
  }
  for (std::int64_t i = 0; i < chunk.rows; ++i) {
    const auto row = static_cast<std::size_t>(i);
    losses.as<float>()[chunk.row0 + i] = states[row].log_sum() - wanted[row];
  }
}

/// Losses, d_logits = grad_scale (softmax - onehot) where it is wanted, and dx = d_logits W.
template <class T>
void differentiate(const Chunk<T>& chunk, double grad_scale, const Tensor& losses, const Tensor& dx,
                   const Tensor& d_logits, Worker& worker, Memory& memory) {
  const std::int64_t vocab = chunk.vocab();
  const std::int64_t hidden = chunk.head.in;
  const auto scale = static_cast<float>(grad_scale);
  const auto [logits, gradient, sums] = GradientScratch<T>(worker, vocab, hidden, memory);
  std::array<RowState, kChunkRows> states;
  for (std::int64_t first = 0; first < vocab; first += kVocabTile) {
    const std::int64_t count = std::min(kVocabTile, vocab - first);
    float* tile = logits + first * chunk.rows;
    chunk.logits(worker.gemm, first, count, tile);
    for (std::int64_t i = 0; i < chunk.rows; ++i) states[static_cast<std::size_t>(i)].add(tile + i * count, count);
  }
  std::array<float, kChunkRows> log_sums{};
  for (std::int64_t i = 0; i < chunk.rows; ++i) {
    const auto row = static_cast<std::size_t>(i);
    log_sums[row] = states[row].log_sum();
    const std::int64_t target = chunk.targets[static_cast<std::size_t>(chunk.row0 + i)];
    const std::int64_t first = target / kVocabTile * kVocabTile;
    const std::int64_t count = std::min(kVocabTile, vocab - first);
    losses.as<float>()[chunk.row0 + i] = log_sums[row] - logits[first * chunk.rows + i * count + target - first];
  }
  const PanelShape shape{vocab, hidden, kDTypeOf<T>};
  const T* w = backward_panels<T>(chunk.head);
  for (std::int64_t first = 0; first < vocab; first += kVocabTile) {
    const std::int64_t count = std::min(kVocabTile, vocab - first);
    for (std::int64_t i = 0; i < chunk.rows; ++i) {
      float* row = logits + first * chunk.rows + i * count;
      const float log_sum = log_sums[static_cast<std::size_t>(i)];
#pragma omp simd
      for (std::int64_t j = 0; j < count; ++j) row[j] = fast_exp(row[j] - log_sum) * scale;
      const std::int64_t target = chunk.targets[static_cast<std::size_t>(chunk.row0 + i)] - first;
      if (target >= 0 && target < count) row[target] -= scale;
      narrow(row, gradient + i * count, count);
      if (!d_logits.empty()) narrow(row, d_logits.row<T>(chunk.row0 + i) + first, count);
    }
    for (std::int64_t i = 0; i < chunk.rows; i += kTileRows) {
      const std::int64_t rows = std::min(kTileRows, chunk.rows - i);
      // A range of rows of W is contiguous only within one panel.
      for (std::int64_t col = 0; col < hidden; col += kPanel) {
        const std::int64_t width = std::min(kPanel, hidden - col);
        worker.gemm.multiply(kDTypeOf<T>, rows, width, count, gradient + i * count,
                             w + col / kPanel * shape.panel_stride() + first * kPanel,
                             sums + col * kChunkRows + i * width, first > 0);
      }
    }
  }
  for (std::int64_t col = 0; col < hidden; col += kPanel) {
    const std::int64_t width = std::min(kPanel, hidden - col);
    for (std::int64_t i = 0; i < chunk.rows; ++i) {
      narrow(sums + col * kChunkRows + i * width, dx.row<T>(chunk.row0 + i) + col, width);
    }
  }
}

}  // namespace

template <class T>
void cross_entropy(Team& team, const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                   double grad_scale, const Tensor& losses, const Tensor& dx, const Tensor& d_logits) {
  team.for_each((x.rows + kChunkRows - 1) / kChunkRows, [&](std::int64_t unit, Worker& worker) {
    const std::int64_t row0 = unit * kChunkRows;
    const Chunk<T> chunk{head, x, targets, row0, std::min(kChunkRows, x.rows - row0)};
    if (dx.empty()) {
      evaluate(chunk, losses, worker, team.memory());
    } else {
      differentiate(chunk, grad_scale, losses, dx, d_logits, worker, team.memory());
    }
  });
}

template <class T>
void cross_entropy_scratch(TeamScratch& scratch, const FrozenLinear& head, bool backward) {
  scratch.worker.need<float>(kLogits, kChunkRows * (backward ? std::max(head.outs[0], kVocabTile) : kVocabTile));
  if (!backward) return;
  scratch.worker.need<T>(kGradient, kChunkRows * kVocabTile);
  scratch.worker.need<float>(kDx, kChunkRows * round_up(head.in));
}

template void cross_entropy_scratch<float>(TeamScratch&, const FrozenLinear&, bool);
template void cross_entropy_scratch<BF16>(TeamScratch&, const FrozenLinear&, bool);
template void cross_entropy<float>(Team&, const FrozenLinear&, const Tensor&, std::span<const std::int32_t>, double,
                                   const Tensor&, const Tensor&, const Tensor&);
template void cross_entropy<BF16>(Team&, const FrozenLinear&, const Tensor&, std::span<const std::int32_t>, double,
                                  const Tensor&, const Tensor&, const Tensor&);

}  // namespace lomu::cpu

// Host code only: the tables of a LoRA-Muon step, the layout of its workspace, and its launches in order.
#include <algorithm>
#include <cstring>

#include "kernels/cuda/lora_muon.h"
#include "kernels/cuda/lora_muon_tables.h"
#include "kernels/cuda/real.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

constexpr std::size_t kAlign = 256;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

/// Rows of a Gram tile: depends on the rank alone, so that company changes no bit. More of them where a slot is larger,
/// so that slots stay a few percent of the traffic; few enough that a model of 8 B parameters has thousands.
constexpr int gram_tile_rows(int rank) {
  return rank <= 64 ? 1024 : rank <= 128 ? 2048 : 4096;
}
constexpr int kRowTileRows = 1024;

/// Gives out stretches of the workspace, in numbers.
class Layout {
 public:
  std::int64_t take(std::int64_t count) {
    const std::int64_t at = used_;
    used_ += count;
    return at;
  }
  [[nodiscard]] std::int64_t used() const { return used_; }

 private:
  std::int64_t used_ = 0;
};

Half make_half(const PairDesc& pair, bool wide, bool newton_schulz, Layout& layout) {
  Half half{};
  half.arrays = wide ? pair.right : pair.left;
  half.length = wide ? pair.n : pair.m;
  half.scale = pair.scale;
  half.step_multiplier = pair.step_multiplier;
  half.rank = pair.r;
  half.slots = static_cast<std::int32_t>(gpu::ceil_div(half.length, gram_tile_rows(pair.r)));
  half.wide = wide;
  half.damped = wide ? pair.left_started_zero : pair.right_started_zero;
  half.partials = layout.take(std::int64_t{half.slots} * 2 * gram_size(pair.r));
  half.grad_norms = layout.take(std::int64_t{half.slots} * groups_of(pair.r));
  half.step_matrix = layout.take(std::int64_t{padded_rank(pair.r)} * padded_rank(pair.r));
  half.scratch = layout.take(std::int64_t{scratch_squares(newton_schulz, pair.r)} * square_size(pair.r));
  return half;
}

/// Calls visit(first row, rows) for each tile.
template <class Visit>
void for_each_tile(std::int64_t length, int tile_rows, Visit visit) {
  for (std::int64_t first = 0; first < length; first += tile_rows) {
    visit(first, static_cast<std::int32_t>(std::min<std::int64_t>(tile_rows, length - first)));
  }
}

template <class T>
std::size_t append(std::vector<std::byte>& table, const std::vector<T>& rows) {
  const std::size_t at = aligned(table.size());
  table.resize(at + rows.size() * sizeof(T));
  std::memcpy(table.data() + at, rows.data(), rows.size() * sizeof(T));
  return at;
}

}  // namespace

LoraMuonPlan::LoraMuonPlan(std::span<const PairDesc> pairs, const LoraMuonOptions& options)
    : options_(options), pairs_(pairs.size()) {
  check_lora_muon(pairs, options);
  std::vector<Half> halves;
  std::vector<GramTile> gram_tiles;
  std::vector<RowTile> row_tiles;
  Layout layout;
  for (const PairDesc& pair : pairs) {
    largest_rank_ = std::max(largest_rank_, pair.r);
    for (const bool wide : {false, true}) {
      const auto index = static_cast<std::int32_t>(halves.size());
      const Half& half = halves.emplace_back(make_half(pair, wide, options.newton_schulz, layout));
      for_each_tile(half.length, gram_tile_rows(pair.r), [&](std::int64_t first, std::int32_t rows) {
        const auto slot = static_cast<std::int32_t>(first / gram_tile_rows(pair.r));
        for (std::int16_t i = 0; i < groups_of(pair.r); ++i) {
          for (std::int16_t j = i; j < groups_of(pair.r); ++j) gram_tiles.push_back({first, rows, index, slot, i, j});
        }
      });
      for_each_tile(half.length, kRowTileRows, [&](std::int64_t first, std::int32_t rows) {
        row_tiles.push_back({first, rows, index});
      });
    }
  }
  gram_tiles_ = gram_tiles.size();
  row_tiles_ = row_tiles.size();
  append(table_, halves);
  gram_tiles_offset_ = append(table_, gram_tiles);
  row_tiles_offset_ = append(table_, row_tiles);
  failures_offset_ = aligned(report_count() * sizeof(LoraMuonHalfReport));
  numbers_offset_ = failures_offset_ + kAlign;
  workspace_bytes_ = numbers_offset_ + static_cast<std::size_t>(layout.used()) * sizeof(double);
}

template <class Real>
Workspace<Real> LoraMuonPlan::space(const std::byte* table, std::byte* workspace) const {
  return {reinterpret_cast<const Half*>(table),
          reinterpret_cast<const GramTile*>(table + gram_tiles_offset_),
          reinterpret_cast<const RowTile*>(table + row_tiles_offset_),
          reinterpret_cast<Real*>(workspace + numbers_offset_),
          reinterpret_cast<LoraMuonHalfReport*>(workspace + reports_offset()),
          reinterpret_cast<int*>(workspace + failures_offset_)};
}

template <class Real>
void LoraMuonPlan::step_in(const Workspace<Real>& space, const LoraMuonStep* step, const double* grad_norm_squared,
                           Stream stream) const {
  const bool clips = options_.max_grad_norm > 0.0;
  const StepRule rule{options_.momentum,
                      options_.weight_decay,
                      options_.damping.value_or(1.0),
                      options_.max_grad_norm,
                      options_.nesterov,
                      step,
                      clips ? grad_norm_squared : nullptr};
  const auto pairs = static_cast<int>(pairs_);
  launch_grams(space, rule, static_cast<int>(gram_tiles_), stream);
  launch_small_spectral(space, rule, options_.newton_schulz, pairs, largest_rank_, stream);
  launch_apply(space, rule, static_cast<int>(row_tiles_), largest_rank_, stream);
}

void LoraMuonPlan::step(const std::byte* table, std::byte* workspace, const LoraMuonStep* step,
                        const double* grad_norm_squared, Stream stream) const {
  if (options_.max_grad_norm > 0.0 && !grad_norm_squared) {
    throw Error("gradient clipping needs the global gradient norm, and the step was given none");
  }
  if (pairs_ == 0) return;
  if (options_.precision == Precision::kDouble) {
    step_in(space<double>(table, workspace), step, grad_norm_squared, stream);
  } else {
    step_in(space<TwoFloat>(table, workspace), step, grad_norm_squared, stream);
  }
}

void LoraMuonPlan::balance(const std::byte* table, std::byte* workspace, Stream stream) const {
  if (pairs_ == 0) return;
  const auto pairs = static_cast<int>(pairs_);
  if (options_.precision == Precision::kDouble) {
    launch_balance(space<double>(table, workspace), pairs, largest_rank_, stream);
  } else {
    launch_balance(space<TwoFloat>(table, workspace), pairs, largest_rank_, stream);
  }
}

}  // namespace lomu::cuda

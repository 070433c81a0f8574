// Launch 1 of a LoRA-Muon step. Bound: memory up to rank 64 (12 bytes a parameter read once), above by the tensor
// cores' double rate. Two blocks an SM, each with 24 KiB of loads in flight while it multiplies, keep 48 KiB on the
// way; 4.8 TB/s over 132 SMs at 0.8 us of latency need 29.
#include "kernels/cuda/panel_gram.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

// TwoFloat has twice the temporaries, and devices that need it are not bound by memory here.
template <class Real>
constexpr int kBlocksPerSm = std::is_same_v<Real, double> ? 2 : 1;

template <class Real>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm<Real>) grams_kernel(Workspace<Real> work, StepRule step_rule) {
  SharedArena shared;
  Real* panels = shared.take<Real>(2 * kGramPanelSize);
  Real* slots = shared.take<Real>(kThreads / 32);
  const GramTile tile = work.gram_tiles[blockIdx.x];
  const Half& half = work.halves[tile.half];
  if (blockIdx.x == 0 && threadIdx.x == 0) *work.failures = 0;

  const MomentumRule<Real> rule(step_rule);
  const GramSource from{half, tile.first, tile.rows, tile.group_i * kGroup, tile.group_j * kGroup, true};
  Real* slot = work.numbers + half.partials + static_cast<std::int64_t>(tile.slot) * 2 * gram_size(half.rank);
  const Real grad_norm = panel_gram_of(from, rule, panels, slots, slot);
  if (threadIdx.x == 0 && tile.group_i == tile.group_j) {
    work.numbers[half.grad_norms + tile.slot * groups_of(half.rank) + tile.group_i] = grad_norm;
  }
}

}  // namespace

template <class Real>
void launch_grams(const Workspace<Real>& work, const StepRule& rule, int tiles, Stream stream) {
  const std::size_t shared = SharedArena::bytes<Real>(2 * kGramPanelSize) + SharedArena::bytes<Real>(kThreads / 32);
  launch(grams_kernel<Real>, {static_cast<unsigned>(tiles), kThreads, shared, stream}, work, rule);
}

template void launch_grams(const Workspace<double>&, const StepRule&, int, Stream);
template void launch_grams(const Workspace<TwoFloat>&, const StepRule&, int, Stream);

}  // namespace lomu::cuda

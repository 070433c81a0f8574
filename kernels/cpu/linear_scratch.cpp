#include <algorithm>
#include <type_traits>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/linear_slots.h"
#include "kernels/cpu/skinny.h"

namespace lomu::cpu {
using namespace linear_slots;

template <class T>
void linear_scratch(TeamScratch& scratch, const Workload::Linear& linear, std::int64_t rows, bool backward) {
  const AdaptedLinear& layer = linear.layer;
  const std::int64_t in = layer.frozen.in;
  const std::int64_t rank = layer.total_rank();
  const bool dropped = has_dropout(layer);
  scratch.worker.need<float>(kTile, kTileRows * std::max(kWideTile, rank));
  if (dropped) scratch.worker.need<T>(kDropped, kTileRows * in);
  // The columns of one part of several lie in their group with gaps between the rows, and are copied without.
  const bool grouped = layer.adapters.size() > 1;
  for (const Adapter& adapter : layer.adapters) {
    if (grouped) scratch.worker.need<T>(kLeftLowRank, kTileRows * adapter.rank);
  }
  if (!backward) return;
  if (linear.to_stream && !std::is_same_v<T, float>) scratch.team.need<T>(kRounded, rows * layer.frozen.out());
  if (rank == 0) return;
  scratch.team.need<T>(kLowRankGradient, rows * rank);
  std::int64_t packed = 0;
  for (std::size_t part = 0; part < layer.adapters.size(); ++part) {
    const std::int64_t r = layer.adapters[part].rank;
    if (r == 0) continue;
    packed += 2 * skinny_pack_size(rows, r);
    scratch.worker.need<float>(kSkinnyOut, skinny_result_size(r));
    if (grouped) scratch.worker.need<T>(kLeft, kTileRows * layer.frozen.outs[part]);
  }
  scratch.team.need<T>(kSkinnyLeft, packed);
  if (!dropped) return;
  scratch.worker.need<T>(kDropped, std::max(rows * kSkinnyColumns, kTileRows * rank));
  scratch.worker.need<float>(kSkinnyOut, kTileRows * kWideTile);
}

template void linear_scratch<float>(TeamScratch&, const Workload::Linear&, std::int64_t, bool);
template void linear_scratch<BF16>(TeamScratch&, const Workload::Linear&, std::int64_t, bool);

}  // namespace lomu::cpu

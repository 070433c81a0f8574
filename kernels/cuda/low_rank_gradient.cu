// g = p^T q over tokens. The wider of the two matrices is cut into tiles of 64 columns, the other is a rank of up to 64
// columns a block; a block goes over the tokens of its slot, 32 a stage, with two stages in flight while it multiplies
// a third (4 KB of the wide matrix each). Both operands lie with the summed index across the rows, so ldmatrix
// transposes them on the way. Four warps have 16 wide columns each.
#include "kernels/cuda/low_rank.h"
#include "kernels/cuda/low_rank_tiles.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kTokens = 32, kStages = 3, kWidePitch = kTile + 8;
static_assert(kTile == 16 * kWarps);

// Where result (wide column, rank) of slot s goes: data + s * slot + wide * wide_stride + rank * rank_stride.
struct Results {
  float* data;
  std::int64_t slot, wide_stride, rank_stride;
};

template <int kRank>
__global__ void __launch_bounds__(kThreads) gradient_kernel(TileSource wide, TileSource narrow, float scale, Results to,
                                                            std::int64_t tokens, std::int64_t tokens_per_slot) {
  constexpr int kNarrowPitch = kRank + 8, kWideTile = kTokens * kWidePitch, kNarrowTile = kTokens * kNarrowPitch;
  SharedArena shared;
  auto* wide_tiles = shared.take<bf16>(kStages * kWideTile);
  auto* narrow_tiles = shared.take<bf16>(kStages * kNarrowTile);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int wide0 = static_cast<int>(blockIdx.x) * kTile, rank0 = static_cast<int>(blockIdx.y) * kRank;
  const std::int64_t begin = blockIdx.z * tokens_per_slot, end = min(begin + tokens_per_slot, tokens);
  const int steps = begin < end ? static_cast<int>(ceil_div(end - begin, kTokens)) : 0;

  const auto fetch = [&](int step) {
    if (step < steps) {
      const std::int64_t token = begin + static_cast<std::int64_t>(step) * kTokens;
      const int stage = step % kStages;
      fetch_tile<kTokens, kTile, kThreads>(wide_tiles + stage * kWideTile, wide, token, end, wide0);
      fetch_tile<kTokens, kRank, kThreads>(narrow_tiles + stage * kNarrowTile, narrow, token, end, rank0);
    }
    copy_async_commit();  // also an empty group: the count of those in flight stays the same
  };

  const int wide_at = (lane / 16 * 8 + lane % 8) * kWidePitch + warp * 16 + lane / 8 % 2 * 8;
  const int narrow_at = lane % 16 * kNarrowPitch + lane / 16 * 8;
  float acc[kRank / 8][4] = {};
  for (int i = 0; i < kStages - 1; ++i) fetch(i);
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // this stage has arrived for all, and all are done with the one that is fetched next
    fetch(step + kStages - 1);
    const bf16* left = wide_tiles + step % kStages * kWideTile + wide_at;
    const bf16* right = narrow_tiles + step % kStages * kNarrowTile + narrow_at;
#pragma unroll
    for (int k = 0; k < kTokens; k += 16) {
      std::uint32_t a[4];
      load_matrix_x4<true>(a, left + k * kWidePitch);
#pragma unroll
      for (int r = 0; r < kRank / 8; r += 2) {
        std::uint32_t b[4];
        load_matrix_x4<true>(b, right + k * kNarrowPitch + r * 8);
        mma_bf16(acc[r], a, b[0], b[1]);
        mma_bf16(acc[r + 1], a, b[2], b[3]);
      }
    }
  }

  float* slot = to.data + blockIdx.z * to.slot;
#pragma unroll
  for (int r = 0; r < kRank / 8; ++r) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int column = wide0 + warp * 16 + lane / 4 + e / 2 * 8, rank = rank0 + r * 8 + lane % 4 * 2 + e % 2;
      if (column < wide.cols && rank < narrow.cols) {
        slot[column * to.wide_stride + rank * to.rank_stride] = scale * acc[r][e];
      }
    }
  }
}

// g = the sum of the slots, in their order.
constexpr int kSumThreads = 256;
template <bool Wide>
__global__ void __launch_bounds__(kSumThreads)
    add_slots_kernel(const float* __restrict__ slots, int count, float* __restrict__ g, int size) {
  const int at = (static_cast<int>(blockIdx.x) * kSumThreads + static_cast<int>(threadIdx.x)) * kPiece;
  if (at >= size) return;
  float sum[kPiece], next[kPiece];
  load_piece<Wide>(slots, at, size, sum);
#pragma unroll 4
  for (int s = 1; s < count; ++s) {
    load_piece<Wide>(slots + static_cast<std::int64_t>(s) * size, at, size, next);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) sum[i] += next[i];
  }
  store_piece<Wide>(g, at, size, sum);
}

void add_slots(const float* slots, std::int64_t count, float* g, std::int64_t size, Stream stream) {
  const bool wide = is_aligned16(slots) && is_aligned16(g) && size % 4 == 0;
  const auto blocks = static_cast<unsigned>(ceil_div(size, kSumThreads * kPiece));
  launch(wide ? add_slots_kernel<true> : add_slots_kernel<false>, {blocks, kSumThreads, 0, stream}, slots,
         static_cast<int>(count), g, static_cast<int>(size));
}

void multiply(DeviceRows<const BF16> p, DeviceRows<const BF16> q, float scale, float* to, std::int64_t tokens,
              std::int64_t m, std::int64_t n, const SlotPlan& plan, Stream stream) {
  const TileSource left(element_rows(p), m), right(element_rows(q), n);
  const bool p_is_wide = m > n;
  const Results results{to, m * n, p_is_wide ? n : 1, p_is_wide ? 1 : n};
  const std::int64_t width = p_is_wide ? m : n, rank = p_is_wide ? n : m;
  with_rank_tile(rank, [&](auto ranks) {
    const std::size_t shared = SharedArena::bytes<bf16>(kStages * kTokens * kWidePitch) +
                               SharedArena::bytes<bf16>(kStages * kTokens * (ranks() + 8));
    const dim3 grid(static_cast<unsigned>(ceil_div(width, kTile)), static_cast<unsigned>(ceil_div(rank, ranks())),
                    static_cast<unsigned>(plan.slots));
    launch(gradient_kernel<ranks()>, {grid, kThreads, shared, stream}, p_is_wide ? left : right,
           p_is_wide ? right : left, scale, results, tokens, plan.tokens_per_slot);
  });
}

void multiply(DeviceRows<const float> p, DeviceRows<const float> q, float scale, float* to, std::int64_t tokens,
              std::int64_t m, std::int64_t n, const SlotPlan& plan, Stream stream) {
  float_product({p.data, 1, p.ld}, {q.data, 1, q.ld}, scale, {to, n}, m * n, m, n, tokens, plan.slots,
                plan.tokens_per_slot, stream);
}

}  // namespace

std::size_t low_rank_gradient_bytes(std::int64_t tokens, std::int64_t m, std::int64_t n) {
  const std::int64_t slots = SlotPlan(tokens, m, n).slots;
  return slots == 1 ? 0 : static_cast<std::size_t>(slots * m * n) * sizeof(float);
}

template <class T>
void low_rank_gradient(DeviceRows<const T> p, DeviceRows<const T> q, float scale, float* g, std::int64_t tokens,
                       std::int64_t m, std::int64_t n, void* workspace, Stream stream) {
  if (m == 0 || n == 0) return;
  const SlotPlan plan(tokens, m, n);
  auto* slots = plan.slots == 1 ? g : static_cast<float*>(workspace);
  multiply(p, q, scale, slots, tokens, m, n, plan, stream);
  if (plan.slots > 1) add_slots(slots, plan.slots, g, m * n, stream);
}

template void low_rank_gradient(DeviceRows<const BF16>, DeviceRows<const BF16>, float, float*, std::int64_t,
                                std::int64_t, std::int64_t, void*, Stream);
template void low_rank_gradient(DeviceRows<const float>, DeviceRows<const float>, float, float*, std::int64_t,
                                std::int64_t, std::int64_t, void*, Stream);

}  // namespace lomu::cuda

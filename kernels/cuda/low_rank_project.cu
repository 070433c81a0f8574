// A block takes 32 tokens and up to 64 ranks. Its four warps share the depth: of every 64 columns of x each multiplies
// 16, so all of them wait for memory together, and their sums are added in order at the end. Four stages of shared
// memory keep three in flight (14 KB of x a block, and two or three blocks a processor).
#include "kernels/cuda/low_rank.h"
#include "kernels/cuda/low_rank_tiles.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kTokens = 32, kDepth = 16 * kWarps, kStages = 4;

template <int kRank, FactorLayout kLayout>
struct Tiles {
  static constexpr bool kByRank = kLayout == FactorLayout::kRankByWidth;
  static constexpr int kFactorRows = kByRank ? kRank : kDepth, kFactorCols = kByRank ? kDepth : kRank;
  static constexpr int kInput = kTokens * (kDepth + 8), kFactor = kFactorRows * (kFactorCols + 8);
  static constexpr int kSums = kWarps * kTokens * kRank;
  static constexpr std::size_t kBytes = SharedArena::bytes<bf16>(kStages * kInput) +
                                        SharedArena::bytes<bf16>(kStages * kFactor) + SharedArena::bytes<float>(kSums);
};

template <int kRank, FactorLayout kLayout>
__global__ void __launch_bounds__(kThreads, 2)
    project_kernel(TileSource x, TileSource factor, float scale, DeviceRows<bf16> s, std::int64_t tokens,
                   int factor_rows, int rank) {
  using Tile = Tiles<kRank, kLayout>;
  SharedArena shared;
  auto* inputs = shared.take<bf16>(kStages * Tile::kInput);
  auto* factors = shared.take<bf16>(kStages * Tile::kFactor);
  auto* sums = shared.take<float>(Tile::kSums);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const std::int64_t token0 = static_cast<std::int64_t>(blockIdx.x) * kTokens;
  const int rank0 = static_cast<int>(blockIdx.y) * kRank, steps = ceil_div(x.cols, kDepth);

  const auto fetch = [&](int step) {
    if (step < steps) {
      const int stage = step % kStages, col = step * kDepth;
      fetch_tile<kTokens, kDepth, kThreads>(inputs + stage * Tile::kInput, x, token0, tokens, col);
      fetch_tile<Tile::kFactorRows, Tile::kFactorCols, kThreads>(factors + stage * Tile::kFactor, factor,
                                                                 Tile::kByRank ? rank0 : col, factor_rows,
                                                                 Tile::kByRank ? col : rank0);
    }
    copy_async_commit();  // also an empty group: the count of those in flight stays the same
  };

  // What a lane names for ldmatrix, within this warp's 16 columns of the depth.
  const int input_at = lane % 16 * (kDepth + 8) + warp * 16 + lane / 16 * 8;
  const int factor_at = Tile::kByRank ? (lane / 16 * 8 + lane % 8) * (kDepth + 8) + warp * 16 + lane / 8 % 2 * 8
                                      : (warp * 16 + lane % 16) * (kRank + 8) + lane / 16 * 8;
  constexpr int kFactorStep = Tile::kByRank ? 16 * (kDepth + 8) : 16;  // to the next 16 ranks

  float acc[2][kRank / 8][4] = {};
  for (int i = 0; i < kStages - 1; ++i) fetch(i);
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // this stage has arrived for all, and all are done with the one that is fetched next
    fetch(step + kStages - 1);
    const bf16* input = inputs + step % kStages * Tile::kInput + input_at;
    const bf16* right = factors + step % kStages * Tile::kFactor + factor_at;
    std::uint32_t a[2][4];
    load_matrix_x4<false>(a[0], input);
    load_matrix_x4<false>(a[1], input + 16 * (kDepth + 8));
#pragma unroll
    for (int r = 0; r < kRank / 8; r += 2) {
      std::uint32_t b[4];
      load_matrix_x4<!Tile::kByRank>(b, right + r / 2 * kFactorStep);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        mma_bf16(acc[t][r], a[t], b[0], b[1]);
        mma_bf16(acc[t][r + 1], a[t], b[2], b[3]);
      }
    }
  }

  // The warps' sums, [warp][token][rank], added in the order of the warps.
#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int r = 0; r < kRank / 8; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int token = t * 16 + lane / 4 + e / 2 * 8, column = r * 8 + lane % 4 * 2 + e % 2;
        sums[(warp * kTokens + token) * kRank + column] = acc[t][r][e];
      }
    }
  }
  __syncthreads();
  for (int i = thread; i < kTokens * kRank; i += kThreads) {
    float sum = sums[i];
    for (int w = 1; w < kWarps; ++w) sum += sums[w * kTokens * kRank + i];
    const std::int64_t token = token0 + i / kRank;
    const int column = rank0 + i % kRank;
    if (token < tokens && column < rank) s.data[token * s.ld + column] = from_float<bf16>(scale * sum);
  }
}

template <FactorLayout kLayout>
void launch_project(DeviceRows<const BF16> x, DeviceRows<const BF16> factor, float scale, DeviceRows<BF16> s,
                    std::int64_t tokens, std::int64_t width, std::int64_t rank, Stream stream) {
  constexpr bool kByRank = kLayout == FactorLayout::kRankByWidth;
  with_rank_tile(rank, [&](auto ranks) {
    const dim3 grid(static_cast<unsigned>(ceil_div(tokens, kTokens)), static_cast<unsigned>(ceil_div(rank, ranks())));
    launch(project_kernel<ranks(), kLayout>, {grid, kThreads, Tiles<ranks(), kLayout>::kBytes, stream},
           TileSource(element_rows(x), width), TileSource(element_rows(factor), kByRank ? width : rank), scale,
           element_rows(s), tokens, static_cast<int>(kByRank ? rank : width), static_cast<int>(rank));
  });
}

}  // namespace

template <>
void low_rank_project(DeviceRows<const BF16> x, DeviceRows<const BF16> factor, FactorLayout layout, float scale,
                      DeviceRows<BF16> s, std::int64_t tokens, std::int64_t width, std::int64_t rank, Stream stream) {
  if (tokens == 0 || rank == 0) return;
  const auto project = layout == FactorLayout::kRankByWidth ? launch_project<FactorLayout::kRankByWidth>
                                                            : launch_project<FactorLayout::kWidthByRank>;
  project(x, factor, scale, s, tokens, width, rank, stream);
}

template <>
void low_rank_project(DeviceRows<const float> x, DeviceRows<const float> factor, FactorLayout layout, float scale,
                      DeviceRows<float> s, std::int64_t tokens, std::int64_t width, std::int64_t rank, Stream stream) {
  if (tokens == 0 || rank == 0) return;
  const bool by_rank = layout == FactorLayout::kRankByWidth;
  const FloatOperand right{factor.data, by_rank ? factor.ld : 1, by_rank ? 1 : factor.ld};
  float_product({x.data, x.ld, 1}, right, scale, s, 0, tokens, rank, width, 1, width, stream);
}

}  // namespace lomu::cuda

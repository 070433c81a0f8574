// What the kernels of a LoRA-Muon step read about their work: factors, tiles of rows, and where in the workspace each
// number has its slot. Built once per run by LoraMuonPlan; for the .cu files of the optimizer only.
#pragma once

#include <cstdint>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/lora_muon.h"

namespace lomu::cuda {

/// One factor: [length, rank] if tall (P), [rank, length] if wide (Q^T). Halves 2 i and 2 i + 1 are pair i's. Offsets
/// count numbers of 8 bytes in the workspace.
struct Half {
  FactorArrays arrays;
  std::int64_t length;
  std::int64_t partials;     ///< `slots` slots, one a Gram tile's rows: Gram of the factor, then of the direction
  std::int64_t grad_norms;   ///< a sum of squares for each slot and group of columns
  std::int64_t step_matrix;  ///< K [p, p] for p = padded_rank, zero beyond the rank
  std::int64_t scratch;      ///< r x r matrices of the small stage
  double scale;
  double step_multiplier;
  std::int32_t rank;
  std::int32_t slots;
  bool wide;
  bool damped;  ///< the partner started at zero
};

/// Rows [first, first + rows) of a half, and the 64-column groups whose block of the two Grams is formed.
struct GramTile {
  std::int64_t first;
  std::int32_t rows;
  std::int32_t half;
  std::int32_t slot;
  std::int16_t group_i, group_j;  ///< i <= j
};

struct RowTile {
  std::int64_t first;
  std::int32_t rows;
  std::int32_t half;
};

/// Columns of a group; the Gram of a larger rank is made by several blocks of threads.
inline constexpr int kGroup = 64;
inline constexpr int kThreads = 256;

/// Up to here the work matrix of the small stage lies in shared memory (144 x 145 numbers are 163 KiB).
inline constexpr int kMaxSharedRank = 144;

/// Grams are stored as the 8 x 8 blocks (i, j), i <= j, of the rank rounded up, row after row, each row-major.
__host__ __device__ constexpr int blocks_along(int rank) {
  return (rank + 7) / 8;
}
__host__ __device__ constexpr int stored_blocks(int rank) {
  return blocks_along(rank) * (blocks_along(rank) + 1) / 2;
}
__host__ __device__ constexpr int gram_size(int rank) {
  return stored_blocks(rank) * 64;
}
__host__ __device__ constexpr int block_index(int along, int i, int j) {
  return i * along - i * (i - 1) / 2 + (j - i);
}
__host__ __device__ constexpr int groups_of(int rank) {
  return (rank + kGroup - 1) / kGroup;
}

/// Columns of the panels that a factor is multiplied in.
__host__ __device__ constexpr int padded_rank(int rank) {
  return rank <= 16 ? 16 : rank <= 32 ? 32 : rank <= 64 ? 64 : rank <= 128 ? 128 : 256;
}

/// An odd distance of rows puts the elements of a column, and those of a row, into different banks.
__host__ __device__ constexpr int square_pitch(int rank) {
  return rank | 1;
}
__host__ __device__ constexpr int square_size(int rank) {
  return rank * square_pitch(rank);
}

/// r x r matrices in a half's scratch: two roots, six for Newton-Schulz, and the work matrix where it is not in shared
/// memory.
constexpr int scratch_squares(bool newton_schulz, int rank) {
  return (newton_schulz ? 6 : 2) + (rank > kMaxSharedRank ? 1 : 0);
}

/// The device's view of tables and workspace.
template <class Real>
struct Workspace {
  const Half* halves;
  const GramTile* gram_tiles;
  const RowTile* row_tiles;
  Real* numbers;
  LoraMuonHalfReport* reports;
  int* failures;  ///< halves that cannot be stepped; set to 0 by the first kernel of a step
};

/// The constants of a run, and what changes with the step behind pointers, so that a captured graph stays valid.
struct StepRule {
  double momentum;
  double weight_decay;
  double damping;  ///< rho
  double max_grad_norm;
  bool nesterov;
  const LoraMuonStep* step;
  const double* grad_norm_squared;  ///< nullptr without clipping
};

// The kernels' launches. `pairs`, `tiles`: how many; largest_rank sets the shared memory.
template <class Real>
void launch_grams(const Workspace<Real>& work, const StepRule& rule, int tiles, Stream stream);
template <class Real>
void launch_small_spectral(const Workspace<Real>& work, const StepRule& rule, bool newton_schulz, int pairs,
                           int largest_rank, Stream stream);
template <class Real>
void launch_apply(const Workspace<Real>& work, const StepRule& rule, int tiles, int largest_rank, Stream stream);
template <class Real>
void launch_balance(const Workspace<Real>& work, int pairs, int largest_rank, Stream stream);

}  // namespace lomu::cuda

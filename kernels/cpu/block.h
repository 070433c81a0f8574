// The operations between the matrix products, row by row: embedding, norms, rotary embedding, SwiGLU, row gathers.
// T = BF16 or float. Contracts: kernels/ops.h.
#pragma once

#include <span>

#include "kernels/cpu/team.h"
#include "kernels/ops.h"

namespace lomu::cpu {

template <class T>
void embed(Team& team, std::span<const std::int32_t> ids, const Tensor& table, const Tensor& out);
template <class T>
void rms_norm(Team& team, const Tensor& x, const float* weight, double eps, const Tensor& y);
template <class T>
void rms_norm_backward(Team& team, const Tensor& dy, const Tensor& x, const float* weight, double eps,
                       const Tensor& dx);
template <class T>
void head_norm(Team& team, const Tensor& x, const float* weight, double eps, std::int64_t heads, const Tensor& y);
template <class T>
void head_norm_backward(Team& team, const Tensor& x, const float* weight, double eps, std::int64_t heads,
                        const Tensor& dy);
template <class T>
void rope(Team& team, const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
          const Tensor& sin, bool inverse);
template <class T>
void swiglu(Team& team, const Tensor& gate_up, const Tensor& h);
template <class T>
void swiglu_backward(Team& team, const Tensor& dh, const Tensor& gate_up, const Tensor& d_gate_up);

void gather_rows(Team& team, const Tensor& x, std::span<const std::int32_t> rows, const Tensor& y);
void scatter_rows(Team& team, const Tensor& y, std::span<const std::int32_t> rows, const Tensor& x);

/// Runs body(row, worker) for every row, in blocks of rows.
/// Add the scratch that the operations above take: a few rows of a thread.
void norm_scratch(TeamScratch& scratch, std::int64_t hidden, std::int64_t head_dim);
void rope_scratch(TeamScratch& scratch, std::int64_t head_dim);
void swiglu_scratch(TeamScratch& scratch, std::int64_t intermediate);

template <class Body>
void for_rows(Team& team, std::int64_t rows, const Body& body) {
  constexpr std::int64_t kBlock = 16;
  team.for_each((rows + kBlock - 1) / kBlock, [&](std::int64_t block, Worker& worker) {
    const std::int64_t end = rows < (block + 1) * kBlock ? rows : (block + 1) * kBlock;
    for (std::int64_t i = block * kBlock; i < end; ++i) body(i, worker);
  });
}

}  // namespace lomu::cpu

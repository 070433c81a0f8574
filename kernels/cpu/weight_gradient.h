// Gradients of weights that are trained in full on the CPU: matrices, the embedding, norms. T = BF16 or float.
// Contracts: kernels/ops.h.
#pragma once

#include <span>

#include "kernels/cpu/team.h"
#include "kernels/ops.h"

namespace lomu::cpu {

template <class T>
void weight_gradient(Team& team, const Tensor& x, const Tensor& dy, const Tensor& grad);
void embed_backward(Team& team, std::span<const std::int32_t> ids, const Tensor& dout, const Tensor& grad);
template <class T>
void norm_weight_gradient(Team& team, const Tensor& dy, const Tensor& x, double eps, std::int64_t heads,
                          const Tensor& grad);
/// Adds the scratch that weight_gradient takes for matrices of up to `out` rows; 0: no weight is trained in full.
template <class T>
void weight_gradient_scratch(TeamScratch& scratch, std::int64_t tokens, std::int64_t out);

}  // namespace lomu::cpu

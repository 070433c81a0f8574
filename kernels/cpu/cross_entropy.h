// The head and its loss on the CPU, a chunk of rows at a time. Contract: kernels/ops.h.
#pragma once

#include <span>

#include "kernels/cpu/team.h"
#include "kernels/ops.h"

namespace lomu::cpu {

template <class T>
void cross_entropy(Team& team, const FrozenLinear& head, const Tensor& x, std::span<const std::int32_t> targets,
                   double grad_scale, const Tensor& losses, const Tensor& dx, const Tensor& d_logits);
/// Adds the scratch that it takes, with dx if `backward`.
template <class T>
void cross_entropy_scratch(TeamScratch& scratch, const FrozenLinear& head, bool backward);

}  // namespace lomu::cpu

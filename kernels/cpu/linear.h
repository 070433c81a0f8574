// The adapted linear layer on the CPU: frozen panels, adapter panels, forward and backward. T is the activation type
// (BF16 or float). Contracts: kernels/ops.h.
#pragma once

#include "kernels/cpu/pack.h"
#include "kernels/cpu/team.h"
#include "kernels/ops.h"

namespace lomu::cpu {

template <class T>
std::size_t frozen_bytes(const FrozenLinear& linear);
template <class T>
void pack_frozen(const FrozenLinear& linear, std::size_t part, std::int64_t first_row, std::int64_t rows,
                 const float* w);
/// Panels [in, out_i] of part i: x W_i^T.
template <class T>
const T* forward_panels(const FrozenLinear& linear, std::size_t part);
/// Panels [sum of outs, in]: dY W.
template <class T>
const T* backward_panels(const FrozenLinear& linear);

template <class T>
std::size_t adapter_bytes(const AdaptedLinear& linear);
template <class T>
void pack_adapters(Team& team, const AdaptedLinear& linear);

template <class T>
void linear_forward(Team& team, const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y,
                    const Tensor& s);
template <class T>
void linear_backward(Team& team, const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                     const Tensor& dx);
/// The activation-typed form of dy: itself, or rounded into scratch that the next operation may overwrite.
template <class T>
Tensor as_activation(Team& team, const Tensor& dy);
/// Adds the scratch that both take for up to `rows` rows; linear_backward's if `backward`.
template <class T>
void linear_scratch(TeamScratch& scratch, const Workload::Linear& linear, std::int64_t rows, bool backward);

}  // namespace lomu::cpu

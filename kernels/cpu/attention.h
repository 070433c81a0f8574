// Causal attention on the CPU, forward and backward, T = BF16 or float. Scores exist only for 64 queries and up to 512
// keys at a time, whatever the length of the sequence. Contracts: kernels/ops.h.
#pragma once

#include <span>

#include "kernels/cpu/team.h"
#include "kernels/ops.h"

namespace lomu::cpu {

template <class T>
void attention(Team& team, const AttentionShape& shape, std::span<const SequenceSpan> sequences, const Tensor& q,
               const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse);

template <class T>
void attention_backward(Team& team, const AttentionShape& shape, std::span<const SequenceSpan> sequences,
                        const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                        const Tensor& dout, const Tensor& dq, const Tensor& dk, const Tensor& dv);

/// Adds the scratch that each takes for packed sequences of up to `tokens` rows together and `document` each.
template <class T>
void attention_scratch(TeamScratch& scratch, const AttentionShape& shape, std::int64_t tokens, std::int64_t document);
template <class T>
void attention_backward_scratch(TeamScratch& scratch, const AttentionShape& shape, std::int64_t tokens,
                                std::int64_t document);

}  // namespace lomu::cpu

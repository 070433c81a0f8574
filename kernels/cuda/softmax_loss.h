// Cross entropy of rows of logits, and its gradient in their place: what Ops::cross_entropy (kernels/ops.h) does
// between the product that makes a chunk of logits and the one that turns their gradient into dx.
//
// Bound by memory: the logits are read twice (a row of a real vocabulary fits in no cache that a block has to itself)
// and the gradient written once: 2 sizeof(L) + sizeof(T) bytes a logit, sizeof(L) without a gradient. One block a row,
// so a chunk should have at least about a thousand rows to fill a large device.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/stream.h"

namespace lomu::cuda {

/// losses[i] = log(sum_j exp(logits[i][j])) - logits[i][targets[i]];
/// gradient[i][j] = grad_scale * (softmax(logits[i])[j] - (j == targets[i])), unless gradient.data is null.
/// L (of logits) is BF16 or float, T (of the gradient) too. logits, gradient: [rows, vocab]; targets, losses: [rows],
/// on the device; targets in [0, vocab). gradient may be logits if L is T. A row with a NaN or +infinity has a NaN
/// loss; logits of -infinity have probability 0.
template <class L, class T>
void softmax_loss(DeviceRows<const L> logits, const std::int32_t* targets, float grad_scale, float* losses,
                  DeviceRows<T> gradient, std::int64_t rows, std::int64_t vocab, Stream stream);

}  // namespace lomu::cuda

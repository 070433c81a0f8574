#include "kernels/cuda/reduce.h"
#include "kernels/cuda/row_access.h"
#include "kernels/cuda/softmax_loss.h"

namespace lomu::cuda {
namespace {

using namespace gpu;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kBatch = 2;  // pieces that a thread has in flight
constexpr int kStride = kThreads * kPiece;
constexpr float kLowest = -3.4028234e38f;  // a finite start: -infinity minus -infinity would be NaN

// The largest logit so far, and the sum of exp(logit - top).
struct OnlineSum {
  float top = kLowest, sum = 0.0f;

  __device__ void rescale(float new_top) {
    sum *= expf(top - new_top);
    top = new_top;
  }
  // Those of the eight from `count` on do not exist.
  __device__ void add(const float (&x)[kPiece], int count) {
    float largest = top;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      if (i < count) largest = fmaxf(largest, x[i]);
    }
    if (largest > top) rescale(largest);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      if (i < count) sum += expf(x[i] - top);
    }
  }
};

template <bool Wide, bool Gradient, class L, class T>
__global__ void __launch_bounds__(kThreads)
    softmax_loss_kernel(DeviceRows<const L> logits, const std::int32_t* __restrict__ targets, float grad_scale,
                        float* __restrict__ losses, DeviceRows<T> gradient, int vocab) {
  SharedArena shared;
  auto* top_slots = shared.take<float>(kWarps);
  auto* sum_slots = shared.take<float>(kWarps);
  const L* row = logits.data + blockIdx.x * logits.ld;
  const int target = targets[blockIdx.x], first = static_cast<int>(threadIdx.x) * kPiece;
  const float target_logit = to_float(row[target]);  // before the first barrier: the gradient may overwrite it

  // 1. One pass over the row, then the block's maximum and sum.
  OnlineSum own;
  for (int col = first; col < vocab; col += kBatch * kStride) {
    float x[kBatch][kPiece];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) load_piece<Wide>(row, col + b * kStride, vocab, x[b]);
#pragma unroll
    for (int b = 0; b < kBatch; ++b) own.add(x[b], vocab - (col + b * kStride));
  }
  const float top = block_reduce(own.top, top_slots, Larger());
  own.rescale(top);
  const float sum = block_reduce(own.sum, sum_slots, Add());
  // The difference of logits first: where the target is likely, the loss is small and so are both terms.
  if (threadIdx.x == 0) losses[blockIdx.x] = (top - target_logit) + logf(sum);

  // 2. The gradient, each thread in the columns that it alone has read.
  if constexpr (Gradient) {
    const float factor = grad_scale / sum;
    T* to = gradient.data + blockIdx.x * gradient.ld;
    for (int col = first; col < vocab; col += kBatch * kStride) {
      float x[kBatch][kPiece];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) load_piece<Wide>(row, col + b * kStride, vocab, x[b]);
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const int piece = col + b * kStride;
#pragma unroll
        for (int i = 0; i < kPiece; ++i) {
          x[b][i] = factor * expf(x[b][i] - top) - (piece + i == target ? grad_scale : 0.0f);
        }
        if (piece < vocab) store_piece<Wide>(to, piece, vocab, x[b]);
      }
    }
  }
}

}  // namespace

template <class L, class T>
void softmax_loss(DeviceRows<const L> logits, const std::int32_t* targets, float grad_scale, float* losses,
                  DeviceRows<T> gradient, std::int64_t rows, std::int64_t vocab, Stream stream) {
  if (rows == 0) return;
  using From = Element<L>;
  using To = Element<T>;
  const bool wanted = gradient.data != nullptr, wide = are_wide(logits) && (!wanted || are_wide(gradient));
  const auto with_gradient =
      wide ? softmax_loss_kernel<true, true, From, To> : softmax_loss_kernel<false, true, From, To>;
  const auto without = wide ? softmax_loss_kernel<true, false, From, To> : softmax_loss_kernel<false, false, From, To>;
  launch(wanted ? with_gradient : without,
         {static_cast<unsigned>(rows), kThreads, 2 * SharedArena::bytes<float>(kWarps), stream}, element_rows(logits),
         targets, grad_scale, losses, element_rows(gradient), static_cast<int>(vocab));
}

template void softmax_loss(DeviceRows<const float>, const std::int32_t*, float, float*, DeviceRows<float>, std::int64_t,
                           std::int64_t, Stream);
template void softmax_loss(DeviceRows<const float>, const std::int32_t*, float, float*, DeviceRows<BF16>, std::int64_t,
                           std::int64_t, Stream);
template void softmax_loss(DeviceRows<const BF16>, const std::int32_t*, float, float*, DeviceRows<BF16>, std::int64_t,
                           std::int64_t, Stream);

}  // namespace lomu::cuda

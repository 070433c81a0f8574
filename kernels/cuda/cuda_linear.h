// The adapted linear layer on the device: products by MatrixProducts over the buffers of adapted_layout.h, small copies
// by kernels of our own. Contracts: Ops::linear_forward and Ops::linear_backward in kernels/ops.h. T is BF16 or float.
//
// The augmented way needs weights with room for the factors, and x and dy with as many spare columns. For a group, with
// T tokens, n inputs, m outputs, p spare columns and ranks that add up to r <= p, in bf16:
//
//     forward   S = x A^T                  2 T n r FLOPs    reads x            2 T n bytes
//               spare of x = [S 0 1]                        copies S           4 T r
//               y = [x S][W sB]^T          2 T (n + p) m    by tensor cores; y leaves as bf16, or added to the residual
//     backward  dS = dY sB                 2 T m p          reads dY           2 T m
//               dA = dS^T x, all parts     2 T n r          reads x            2 T n; then r n floats are moved
//               dB = dY^T S, each part     2 T m r / parts  reads dY           2 T m
//               dX = [dY dS][W; A]         2 T (m + p) n    by tensor cores
//
// The two large products are bound by arithmetic. The four skinny ones are bound by memory up to ranks of some hundred:
// for Llama-3-8B at rank 16 a layer and token have 0.88 GFLOP in large products and 280 KB in skinny ones, 1.1 us
// against 0.08 us on an H100 (model). S is copied rather than computed again in backward, because it is r / n of the
// bytes of x. The augmentation costs p / n of a product, 1.6 % at n = 4096.
//
// Otherwise (no room, or a test that asks for it) the plain way: every product by itself; results that are sums of
// several are added in an f32 scratch of T m or T n and rounded once, as the specification does. Dropout has S of each
// part from its own x, and dX the plain way, since a mask lies between A and dX.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/cuda/adapted_layout.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/stream.h"
#include "kernels/ops.h"

namespace lomu::cuda {

template <class T>
class CudaLinear {
 public:
  /// All outlive this.
  CudaLinear(MatrixProducts& products, Scratch& scratch, Memory& memory, Stream stream)
      : products_(products), scratch_(scratch), memory_(memory), stream_(stream) {}

  /// One launch for all of them. Groups without adapters are skipped.
  void pack_adapters(std::span<const AdaptedLinear* const> linears);

  /// The scratch that forward and, if `backward`, backward take for up to `rows` rows.
  static void add_scratch(ScratchSizes& sizes, const Workload::Linear& linear, std::int64_t rows, bool backward);

  void forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y, const Tensor& s);
  void backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy, const Tensor& dx);

 private:
  /// What an adapter sees of x: x itself, or with its dropout in scratch.
  Tensor input_of(const Adapter& adapter, const Tensor& x);
  void low_rank_forward(const AdaptedLinear& linear, const AdaptedLayout<T>& layout, const Tensor& x, const Tensor& s);
  /// Adds the bias that no product has added yet, and rounds sums to y where they are not y itself.
  void finish(const AdaptedLinear& linear, bool add_bias, const Tensor& sums, const Tensor& y);
  /// dy in T, with as many spare columns as the products of `layout` like.
  Tensor rounded(const AdaptedLayout<T>& layout, const Tensor& dy);
  /// [T, total rank], in the spare columns of dy if it has enough.
  Tensor low_rank_gradient(const AdaptedLinear& linear, const AdaptedLayout<T>& layout, const Tensor& dy);
  void right_gradients(const AdaptedLinear& linear, const Tensor& x, const Tensor& ds);
  void left_gradients(const AdaptedLinear& linear, const Tensor& s, const Tensor& dy);
  void input_gradient(const AdaptedLinear& linear, const AdaptedLayout<T>& layout, const Tensor& dy, const Tensor& ds,
                      const Tensor& dx);
  void clear_gradients(const AdaptedLinear& linear);

  /// d = alpha a' b' (+ c), the depth given by `a`.
  struct Factor {
    const void* data;
    std::int64_t ld;
    bool transposed;
  };
  void multiply(const Tensor& a, bool a_transposed, const Factor& b, const Tensor& d, double alpha = 1,
                const Tensor& c = {}, const float* bias = nullptr);

  MatrixProducts& products_;
  Scratch& scratch_;
  Memory& memory_;
  Stream stream_;
  std::vector<FactorRectangle<T>> factors_;  ///< what pack_adapters wrote last
  Buffer factor_table_;                      ///< the same on the device
};

extern template class CudaLinear<float>;
extern template class CudaLinear<BF16>;

}  // namespace lomu::cuda

// The adapted linear layer on the device: large products by MatrixProducts, what lies between them by kernels of our
// own. Contracts: Ops::linear_forward and Ops::linear_backward in kernels/ops.h. T is BF16 or float.
//
// In memory: the parts of a group are stacked row-major, [out_0 + out_1 + ..., in], which serves forward (x W^T) and
// backward (dY W) alike, so nothing is packed twice. The factors follow the same rule: the right ones stacked
// [total rank, in], then each part's left one times its scale, [out_i, r_i], all in T.
#pragma once

#include <cstddef>

#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/stream.h"
#include "kernels/ops.h"

namespace lomu::cuda {

template <class T>
class CudaLinear {
 public:
  /// All outlive this.
  CudaLinear(MatrixProducts& products, Scratch& scratch, Storage& storage, Stream stream)
      : products_(products), scratch_(scratch), storage_(storage), stream_(stream) {}

  static std::size_t frozen_bytes(const FrozenLinear& linear);
  static std::size_t adapter_bytes(const AdaptedLinear& linear);
  /// From several threads at once.
  static void pack_frozen(Storage& storage, const FrozenLinear& linear, std::size_t part, std::int64_t first_row,
                          std::int64_t rows, const float* w);
  void pack_adapters(const AdaptedLinear& linear);

  void forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& residual, const Tensor& y, const Tensor& s);
  void backward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy, const Tensor& dx);

 private:
  /// Rows [begin, begin + out) of the stack and columns [begin, ...) of y; factors as packed.
  struct Part {
    std::int64_t begin = 0, out = 0;
    const Adapter* adapter = nullptr;
    std::int64_t rank_begin = 0;
    T* left = nullptr;  ///< [out, rank], scaled
  };

  [[nodiscard]] static std::vector<Part> parts_of(const AdaptedLinear& linear);
  [[nodiscard]] static T* right_factors(const AdaptedLinear& linear) { return reinterpret_cast<T*>(linear.packed); }

  /// What an adapter sees of x: x itself, or with its dropout in scratch.
  Tensor input_of(const Adapter& adapter, const Tensor& x);
  void low_rank_forward(const AdaptedLinear& linear, const Tensor& x, const Tensor& s);
  void factor_gradients(const AdaptedLinear& linear, const Tensor& x, const Tensor& s, const Tensor& dy,
                        const Tensor& ds);
  void input_gradient(const AdaptedLinear& linear, const Tensor& dy, const Tensor& ds, const Tensor& dx);
  void multiply(const Tensor& a, bool a_transposed, const void* b, std::int64_t ldb, bool b_transposed, const Tensor& d,
                float alpha, float beta);

  MatrixProducts& products_;
  Scratch& scratch_;
  Storage& storage_;
  Stream stream_;
};

extern template class CudaLinear<float>;
extern template class CudaLinear<BF16>;

}  // namespace lomu::cuda

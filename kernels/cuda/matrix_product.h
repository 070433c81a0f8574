// Large matrix products on the device, behind one interface: cuBLASLt where there is a device, plain loops in
// emulation. Row-major throughout. Skinny products with adapters' factors may go elsewhere (low_rank.h).
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/stream.h"
#include "kernels/dtype.h"
#include "kernels/memory.h"

namespace lomu::cuda {

/// One operand, as it lies in memory: [rows, cols] with `ld` elements from row to row; used transposed or not.
struct Operand {
  const void* data = nullptr;
  std::int64_t ld = 0;
  bool transposed = false;
};

/// D = alpha A' B' + beta D, with A' [m, k] and B' [k, n] after transposition, D [m, n].
/// A and B have one element type (bf16 or f32); D is that type or f32. Products are added in f32; f32 operands are
/// multiplied as f32 (no TF32).
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  DType operand = DType::kF32;
  DType result = DType::kF32;
  Operand a, b;
  void* d = nullptr;
  std::int64_t ldd = 0;
  float alpha = 1;
  float beta = 0;
};

class MatrixProducts {
 public:
  virtual ~MatrixProducts() = default;
  /// Queues the product. m or n = 0 does nothing; k = 0 scales D by beta. The same shapes and addresses' alignment give
  /// the same bits in every call. Throws Error for a product that the library refuses.
  virtual void run(const Product& product, Stream stream) = 0;
};

/// Sums in k order, in f32 from exact products: what emulation uses, and the check of the other.
std::unique_ptr<MatrixProducts> make_plain_products();

/// cuBLASLt with an algorithm chosen once for each shape. `memory` is device memory and outlives the result; it gives
/// the workspace. Only in builds with CUDA.
std::unique_ptr<MatrixProducts> make_cublaslt_products(Memory& memory);

}  // namespace lomu::cuda

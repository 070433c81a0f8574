// Large matrix products on the device, behind one interface: cuBLASLt where there is a device, plain loops in
// emulation. Row-major throughout. Skinny products with adapters' factors may go elsewhere (low_rank.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

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

/// D = alpha A' B' + beta C + bias, with A' [m, k] and B' [k, n] after transposition, C and D [m, n], a bias for each
/// column. A and B have one element type (bf16 or f32); C and D are both that type, or both f32. Products are added in
/// f32 and rounded once; f32 operands are multiplied as f32 (no TF32).
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  DType operand = DType::kF32;
  DType result = DType::kF32;
  Operand a, b;
  const void* c = nullptr;  ///< nullptr: D itself; else it does not overlap D
  std::int64_t ldc = 0;
  const float* bias = nullptr;  ///< [n]; only where D is f32, for the library takes a bias in D's type alone
  void* d = nullptr;
  std::int64_t ldd = 0;
  float alpha = 1;
  float beta = 0;

  [[nodiscard]] const void* addend() const { return c == nullptr ? d : c; }
  [[nodiscard]] std::int64_t addend_ld() const { return c == nullptr ? ldd : ldc; }
};

class MatrixProducts {
 public:
  virtual ~MatrixProducts() = default;
  /// Queues the product. m or n = 0 does nothing; k > 0. The same shapes and addresses' alignment give
  /// the same bits in every call. Throws Error for a product that the library refuses.
  virtual void run(const Product& product, Stream stream) = 0;
};

/// The product by loops on the host: sums in k order, in f32 from exact products. What emulation uses, and the check of
/// the library.
void multiply_plainly(const Product& product);

/// How cuBLASLt's algorithms are chosen. Either way the sums of an algorithm have a fixed order.
struct ProductOptions {
  /// false: the library's first choice, which depends on shape, card and library alone, so all ranks and runs take the
  /// same one and results are the same bits. true: the fastest of its first eight, measured when a shape is first met
  /// (some ten milliseconds; shapes of nearly equal size share the result) and remembered in `cache`; another run, or
  /// another rank, may choose differently and then differs in the last bits.
  bool timed = false;
  std::filesystem::path cache;                   ///< AlgorithmCache's file; empty: its default place
  std::function<void(const std::string&)> warn;  ///< told once if the cache cannot be used; may be empty
};

/// cuBLASLt with plans kept for each shape, so that a call costs the host little more than the launch. `memory` is
/// memory of the current device and outlives the result; it gives the workspace. Only in builds with CUDA.
std::unique_ptr<MatrixProducts> make_cublaslt_products(Memory& memory, const ProductOptions& options = {});

}  // namespace lomu::cuda

#include <algorithm>
#include <vector>

#include "kernels/cuda/matrix_product.h"

namespace lomu::cuda {
namespace {

template <class T>
float element(const Operand& o, std::int64_t i, std::int64_t j) {
  const auto* data = static_cast<const T*>(o.data);
  return static_cast<float>(o.transposed ? data[j * o.ld + i] : data[i * o.ld + j]);
}

// Row by row, so that the innermost loop goes along a row of B' where it lies that way.
template <class T, class R>
void multiply(const Product& p) {
  const auto* c = static_cast<const R*>(p.addend());
  const std::int64_t ldc = p.addend_ld();
  std::vector<float> sums(static_cast<std::size_t>(p.n));
  for (std::int64_t i = 0; i < p.m; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (std::int64_t l = 0; l < p.k; ++l) {
      const float a = element<T>(p.a, i, l);
      for (std::int64_t j = 0; j < p.n; ++j) sums[static_cast<std::size_t>(j)] += a * element<T>(p.b, l, j);
    }
    for (std::int64_t j = 0; j < p.n; ++j) {
      const float before = p.beta == 0 ? 0.0F : p.beta * static_cast<float>(c[i * ldc + j]);
      const float bias = p.bias == nullptr ? 0.0F : p.bias[j];
      static_cast<R*>(p.d)[i * p.ldd + j] = static_cast<R>(p.alpha * sums[static_cast<std::size_t>(j)] + before + bias);
    }
  }
}

class PlainProducts final : public MatrixProducts {
 public:
  void run(const Product& p, Stream) override {
    if (p.operand == DType::kF32) {
      multiply<float, float>(p);
    } else if (p.result == DType::kF32) {
      multiply<BF16, float>(p);
    } else {
      multiply<BF16, BF16>(p);
    }
  }
};

}  // namespace

std::unique_ptr<MatrixProducts> make_plain_products() {
  return std::make_unique<PlainProducts>();
}

}  // namespace lomu::cuda

#include "kernels/cuda/matrix_product.h"

namespace lomu::cuda {
namespace {

template <class T>
float element(const Operand& o, std::int64_t i, std::int64_t j) {
  const auto* data = static_cast<const T*>(o.data);
  return static_cast<float>(o.transposed ? data[j * o.ld + i] : data[i * o.ld + j]);
}

template <class T, class R>
void multiply(const Product& p) {
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      float sum = 0;
      for (std::int64_t l = 0; l < p.k; ++l) sum += element<T>(p.a, i, l) * element<T>(p.b, l, j);
      R& d = static_cast<R*>(p.d)[i * p.ldd + j];
      const float before = p.beta == 0 ? 0.0F : p.beta * static_cast<float>(d);
      d = static_cast<R>(p.alpha * sum + before);
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

#include <algorithm>
#include <vector>

#include "kernels/cuda/matrix_product.h"

namespace lomu::cuda {
namespace {

/// An operand after transposition, [rows, cols], in f32.
template <class T>
std::vector<float> widened(const Operand& o, std::int64_t rows, std::int64_t cols) {
  const auto* data = static_cast<const T*>(o.data);
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  float* to = values.data();
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t first = o.transposed ? i : i * o.ld, step = o.transposed ? o.ld : 1;
    for (std::int64_t j = 0; j < cols; ++j) *to++ = static_cast<float>(data[first + j * step]);
  }
  return values;
}

template <class T, class R>
void multiply(const Product& p) {
  const std::vector<float> a = widened<T>(p.a, p.m, p.k), b = widened<T>(p.b, p.k, p.n);
  const auto* c = static_cast<const R*>(p.addend());
  const auto n = static_cast<std::size_t>(p.n);
  std::vector<float> sums(n);
  for (std::int64_t i = 0; i < p.m; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0F);
    const float* factor = a.data() + i * p.k;
    for (const float* row = b.data(); row != b.data() + b.size(); row += n, ++factor) {
      for (std::size_t j = 0; j < n; ++j) sums[j] += *factor * row[j];
    }
    for (std::int64_t j = 0; j < p.n; ++j) {
      const float before = p.beta == 0 ? 0.0F : p.beta * static_cast<float>(c[i * p.addend_ld() + j]);
      const float bias = p.bias == nullptr ? 0.0F : p.bias[j];
      static_cast<R*>(p.d)[i * p.ldd + j] = static_cast<R>(p.alpha * sums[static_cast<std::size_t>(j)] + before + bias);
    }
  }
}

}  // namespace

void multiply_plainly(const Product& p) {
  if (p.operand == DType::kF32) {
    multiply<float, float>(p);
  } else if (p.result == DType::kF32) {
    multiply<BF16, float>(p);
  } else {
    multiply<BF16, BF16>(p);
  }
}

}  // namespace lomu::cuda

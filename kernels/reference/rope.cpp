#include "kernels/reference/matrix.h"
#include "kernels/reference/reference_ops.h"

namespace lomu::reference {

void ReferenceOps::rope(const Tensor& x, std::span<const std::int32_t> positions, std::int64_t heads, const Tensor& cos,
                        const Tensor& sin, bool inverse) const {
  require_dtype(x, {precision_.activation}, "rope: x");
  Matrix m = load(x);
  const std::int64_t head_dim = x.cols / heads;
  const std::int64_t half = head_dim / 2;
  for (std::int64_t t = 0; t < x.rows; ++t) {
    const std::int64_t position = positions[static_cast<std::size_t>(t)];
    const Matrix c = load(cos.row_range(position, 1));
    const Matrix s = load(sin.row_range(position, 1));
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = 0; i < half; ++i) {
        double& first = m(t, h * head_dim + i);
        double& second = m(t, h * head_dim + half + i);
        const double sine = inverse ? -s(0, i) : s(0, i);
        const double rotated = first * c(0, i) - second * sine;
        second = second * c(0, i) + first * sine;
        first = rotated;
      }
    }
  }
  store(m, x);
}

}  // namespace lomu::reference

// Rotary embedding, SwiGLU, rows by number and what follows a product, against the specification.
#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "kernels/cuda/epilogue.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/swiglu.h"
#include "tests/kernels/cuda/device_matrix.h"

namespace lomu::cuda {
namespace {

using namespace test;

template <class T>
class CudaBlockOps : public testing::Test {};
TYPED_TEST_SUITE(CudaBlockOps, ActivationTypes);

std::vector<std::int32_t> random_numbers(std::int64_t count, std::int64_t below) {
  std::vector<std::int32_t> v(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = static_cast<std::int32_t>((random_value(9, i) + 1) / 2 * static_cast<double>(below));
  }
  return v;
}

struct HeadShape {
  std::int64_t rows, heads, head_dim;
};

TYPED_TEST(CudaBlockOps, RopeIsEquivalentToReferenceBothWays) {
  using T = TypeParam;
  const auto reference = make_reference_ops(kPrecisionOf<T>);
  const HeadShape shapes[] = {{0, 1, 2}, {1, 1, 2}, {3, 3, 10}, {31, 5, 64}, {7, 4, 80}, {33, 2, 128}, {2, 9, 16}};
  for (const auto& [rows, heads, dim] : shapes) {
    for (const Layout layout : kLayouts) {
      for (const bool inverse : {false, true}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << heads << " x " << dim << ", gap " << layout.gap);
        auto cos = DeviceMatrix<float>::random(50, dim / 2, 1, layout);
        auto sin = DeviceMatrix<float>::random(50, dim / 2, 2, layout);
        const auto positions = random_numbers(rows, 50);
        const auto x = DeviceMatrix<T>::random(rows, heads * dim, 3, layout);
        auto want = x;
        reference->rope(want, positions, heads, cos, sin, inverse);
        auto got = under_every_schedule([&] {
          auto y = x;
          rope<T>(y, positions.data(), cos, sin, inverse, rows, heads, dim, nullptr);
          return y;
        });
        expect_equivalent(got, want);
      }
    }
  }
}

struct Shape {
  std::int64_t rows, cols;
};
const Shape kShapes[] = {{0, 8}, {1, 1}, {2, 7}, {3, 64}, {31, 33}, {2, 100}, {3, 2056}, {2, 4100}};

TYPED_TEST(CudaBlockOps, SwigluIsEquivalentToReference) {
  using T = TypeParam;
  const auto reference = make_reference_ops(kPrecisionOf<T>);
  for (const auto& [rows, width] : kShapes) {
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(testing::Message() << rows << " x " << width << ", gap " << layout.gap);
      auto gate_up = DeviceMatrix<T>::random(rows, 2 * width, 1, layout, 6);
      auto dh = DeviceMatrix<T>::random(rows, width, 2, layout);
      DeviceMatrix<T> want(rows, width), d_want(rows, 2 * width);
      reference->swiglu(gate_up, want);
      reference->swiglu_backward(dh, gate_up, d_want);
      auto got = under_every_schedule([&] {
        DeviceMatrix<T> h(rows, width, layout);
        swiglu<T>(gate_up, h, rows, width, nullptr);
        return h;
      });
      expect_equivalent(got, want);
      auto d_got = under_every_schedule([&] {
        DeviceMatrix<T> d(rows, 2 * width, layout);
        swiglu_backward<T>(dh, gate_up, d, rows, width, nullptr);
        return d;
      });
      expect_equivalent(d_got, d_want);
      swiglu_backward<T>(dh, gate_up, gate_up, rows, width, nullptr);
      expect_same_bits(gate_up, d_got);
    }
  }
}

TEST(CudaSwiglu, StaysFiniteForExtremeGates) {
  const float largest = std::numeric_limits<float>::max();
  std::vector<float> gate_up = {-largest, -1000, -90, 90, 1000, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f}, h(5, NAN), d(10, NAN);
  const std::vector<float> dh(5, 1.0f);
  swiglu<float>({gate_up.data(), 10}, {h.data(), 5}, 1, 5, nullptr);
  swiglu_backward<float>({dh.data(), 5}, {gate_up.data(), 10}, {d.data(), 10}, 1, 5, nullptr);
  EXPECT_EQ(h[0], 0);
  EXPECT_EQ(h[4], 500);
  EXPECT_EQ(d[3], 0.5f);
  for (const float x : d) EXPECT_TRUE(std::isfinite(x)) << x;
}

TYPED_TEST(CudaBlockOps, RowsByNumberAreEquivalentToReference) {
  using T = TypeParam;
  const auto reference = make_reference_ops(kPrecisionOf<T>);
  for (const auto& [rows, cols] : kShapes) {
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", gap " << layout.gap);
      auto table = DeviceMatrix<T>::random(17, cols, 1, layout);
      const auto ids = random_numbers(rows, 17);

      DeviceMatrix<float> embedded_want(rows, cols, layout);
      DeviceMatrix<T> gathered_want(rows, cols, layout);
      reference->embed(ids, table, embedded_want);
      reference->gather_rows(table, ids, gathered_want);
      expect_same_bits(under_every_schedule([&] {
                         DeviceMatrix<float> y(rows, cols, layout);
                         embed<T>(table, ids.data(), y, rows, cols, nullptr);
                         return y;
                       }),
                       embedded_want);
      expect_same_bits(under_every_schedule([&] {
                         DeviceMatrix<T> y(rows, cols, layout);
                         gather_rows<T>(table, ids.data(), y, rows, cols, nullptr);
                         return y;
                       }),
                       gathered_want);

      std::vector<std::int32_t> numbers(static_cast<std::size_t>(rows));
      for (std::int64_t i = 0; i < rows; ++i) numbers[static_cast<std::size_t>(i)] = static_cast<int>(2 * (rows - i));
      DeviceMatrix<T> scattered_want(2 * rows + 3, cols, layout);
      reference->scatter_rows(gathered_want, numbers, scattered_want);
      expect_same_bits(under_every_schedule([&] {
                         DeviceMatrix<T> x(2 * rows + 3, cols, layout);
                         scatter_rows<T>(gathered_want, numbers.data(), x, rows, 2 * rows + 3, cols, nullptr);
                         return x;
                       }),
                       scattered_want);
    }
  }
}

TYPED_TEST(CudaBlockOps, FinishProductAddsWhatIsThere) {
  using T = TypeParam;
  for (const auto& [rows, cols] : kShapes) {
    for (const Layout layout : kLayouts) {
      for (const bool has_bias : {false, true}) {
        for (const bool has_residual : {false, true}) {
          SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", gap " << layout.gap);
          auto c = DeviceMatrix<float>::random(rows, cols, 1, layout);
          auto bias = DeviceMatrix<float>::random(1, cols, 2, {0, layout.offset});
          auto residual = DeviceMatrix<float>::random(rows, cols, 3, layout);
          DeviceMatrix<T> want(rows, cols, layout), y(rows, cols, layout);
          for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < cols; ++j) {
              want(i, j) = T(static_cast<float>(c.get(i, j) + (has_bias ? bias.get(0, j) : 0) +
                                                (has_residual ? residual.get(i, j) : 0)));
            }
          }
          const DeviceRows<const float> added =
              has_residual ? DeviceRows<const float>(residual) : DeviceRows<const float>();
          finish_product<T>(c, has_bias ? bias.data() : nullptr, added, y, rows, cols, nullptr);
          expect_same_bits(y, want);  // the numbers are multiples of 2^-10, so f32 sums are exact
          if constexpr (std::is_same_v<T, float>) {
            finish_product<T>(c, has_bias ? bias.data() : nullptr, added, c, rows, cols, nullptr);
            expect_same_bits(c, want);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lomu::cuda

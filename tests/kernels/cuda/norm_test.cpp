// RMSNorm of rows and of heads against the specification.
#include <gtest/gtest.h>

#include "kernels/cuda/head_norm.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/error.h"
#include "tests/kernels/cuda/device_matrix.h"

namespace lomu::cuda {
namespace {

using namespace test;

constexpr double kEps = 1e-5;

struct Shape {
  std::int64_t rows, cols;
};
// One to eight warps; a row that fits the registers to the last column and ones that do not.
const Shape kShapes[] = {{0, 8}, {1, 1}, {2, 7}, {3, 64}, {5, 100}, {2, 513}, {2, 4096}, {2, 4104}, {3, 5001}};

template <class T>
class CudaRmsNorm : public testing::Test {};
TYPED_TEST_SUITE(CudaRmsNorm, ActivationTypes);

TYPED_TEST(CudaRmsNorm, IsEquivalentToReference) {
  using T = TypeParam;
  const auto reference = make_reference_ops(kPrecisionOf<T>);
  for (const auto& [rows, cols] : kShapes) {
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", gap " << layout.gap);
      auto x = DeviceMatrix<float>::random(rows, cols, 1, layout, 3);
      auto weight = DeviceMatrix<float>::random(1, cols, 2, {0, layout.offset}, 0.5, 1);
      DeviceMatrix<T> want(rows, cols);
      reference->rms_norm(x, weight.data(), kEps, want);
      auto got = under_every_schedule([&] {
        DeviceMatrix<T> y(rows, cols, layout);
        rms_norm<T>(x, weight.data(), kEps, y, rows, cols, nullptr);
        return y;
      });
      expect_equivalent(got, want);
    }
  }
}

TYPED_TEST(CudaRmsNorm, BackwardAddsTheReferencesGradient) {
  using T = TypeParam;
  const auto reference = make_reference_ops(kPrecisionOf<T>);
  for (const auto& [rows, cols] : kShapes) {
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", gap " << layout.gap);
      auto x = DeviceMatrix<float>::random(rows, cols, 1, layout, 3);
      auto dy = DeviceMatrix<T>::random(rows, cols, 3, layout);
      auto weight = DeviceMatrix<float>::random(1, cols, 2, {0, layout.offset}, 0.5, 1);
      const auto before = DeviceMatrix<float>::random(rows, cols, 4, layout, 0.1);
      auto want = before;
      reference->rms_norm_backward(dy, x, weight.data(), kEps, want);
      auto got = under_every_schedule([&] {
        auto dx = before;
        rms_norm_backward<T>(dy, x, weight.data(), kEps, dx, rows, cols, nullptr);
        return dx;
      });
      expect_equivalent(got, want);
    }
  }
}

TEST(CudaRmsNormOfZeros, IsZero) {
  std::vector<float> x(100, 0.0f), weight(100, 2.0f), y(100, NAN);
  rms_norm<float>({x.data(), 100}, weight.data(), 1e-6, {y.data(), 100}, 1, 100, nullptr);
  EXPECT_EQ(y, x);
}

struct HeadShape {
  std::int64_t rows, heads, head_dim;
};
const HeadShape kHeadShapes[] = {{0, 2, 8},  {1, 1, 2},    {3, 5, 6},   {7, 3, 64}, {2, 9, 72},
                                 {5, 2, 80}, {33, 4, 128}, {3, 1, 130}, {2, 3, 256}};

template <class T>
class CudaHeadNorm : public testing::Test {};
TYPED_TEST_SUITE(CudaHeadNorm, ActivationTypes);

TYPED_TEST(CudaHeadNorm, IsEquivalentToReferenceAlsoInPlace) {
  using T = TypeParam;
  const auto reference = make_reference_ops(kPrecisionOf<T>);
  for (const auto& [rows, heads, dim] : kHeadShapes) {
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(testing::Message() << rows << " x " << heads << " x " << dim << ", gap " << layout.gap);
      auto x = DeviceMatrix<T>::random(rows, heads * dim, 1, layout, 2);
      auto weight = DeviceMatrix<float>::random(1, dim, 2, {0, layout.offset}, 0.5, 1);
      DeviceMatrix<T> want(rows, heads * dim);
      reference->head_norm(x, weight.data(), kEps, heads, want);
      auto got = under_every_schedule([&] {
        DeviceMatrix<T> y(rows, heads * dim, layout);
        head_norm<T>(x, weight.data(), kEps, y, rows, heads, dim, nullptr);
        return y;
      });
      expect_equivalent(got, want);
      head_norm<T>(x, weight.data(), kEps, x, rows, heads, dim, nullptr);
      expect_same_bits(x, got);
    }
  }
}

TYPED_TEST(CudaHeadNorm, BackwardIsEquivalentToReference) {
  using T = TypeParam;
  const auto reference = make_reference_ops(kPrecisionOf<T>);
  for (const auto& [rows, heads, dim] : kHeadShapes) {
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(testing::Message() << rows << " x " << heads << " x " << dim << ", gap " << layout.gap);
      auto x = DeviceMatrix<T>::random(rows, heads * dim, 1, layout, 2);
      const auto dy = DeviceMatrix<T>::random(rows, heads * dim, 3, layout);
      auto weight = DeviceMatrix<float>::random(1, dim, 2, {0, layout.offset}, 0.5, 1);
      auto want = dy;
      reference->head_norm_backward(x, weight.data(), kEps, heads, want);
      auto got = under_every_schedule([&] {
        auto d = dy;
        head_norm_backward<T>(x, weight.data(), kEps, d, rows, heads, dim, nullptr);
        return d;
      });
      expect_equivalent(got, want);
    }
  }
}

TEST(CudaHeadNormOfLargeHeads, IsRefused) {
  std::vector<float> x(264), w(264);
  EXPECT_THROW(head_norm<float>({x.data(), 264}, w.data(), kEps, {x.data(), 264}, 1, 1, 264, nullptr),
               UnsupportedError);
}

}  // namespace
}  // namespace lomu::cuda

// The skinny products of adapters against loops in double: ranks within a tile and across several, edges of tiles in
// every direction, matrices that 16-byte copies reach and others, one and several slots of tokens.
#include "kernels/cuda/low_rank.h"

#include <gtest/gtest.h>

#include "tests/kernels/cuda/device_matrix.h"

namespace lomu::cuda {
namespace {

using namespace test;

constexpr float kScale = 1.25f;

template <class T>
class CudaLowRank : public testing::Test {};
TYPED_TEST_SUITE(CudaLowRank, ActivationTypes);

struct Projection {
  std::int64_t tokens, width, rank;
};
const Projection kProjections[] = {{0, 64, 8},    {1, 1, 1},     {2, 8, 4},    {31, 72, 16}, {33, 63, 17},
                                   {100, 200, 8}, {65, 320, 40}, {7, 512, 64}, {3, 130, 65}, {40, 64, 256}};

TYPED_TEST(CudaLowRank, ProjectionEqualsALoopInDouble) {
  using T = TypeParam;
  for (const auto& [tokens, width, rank] : kProjections) {
    for (const Layout layout : kLayouts) {
      for (const FactorLayout lies : {FactorLayout::kRankByWidth, FactorLayout::kWidthByRank}) {
        const bool by_rank = lies == FactorLayout::kRankByWidth;
        SCOPED_TRACE(testing::Message() << tokens << " x " << width << ", rank " << rank << ", gap " << layout.gap
                                        << (by_rank ? ", rank by width" : ", width by rank"));
        auto x = DeviceMatrix<T>::random(tokens, width, 1, layout);
        auto factor =
            by_rank ? DeviceMatrix<T>::random(rank, width, 2, layout) : DeviceMatrix<T>::random(width, rank, 2, layout);
        DeviceMatrix<T> want(tokens, rank);
        for (std::int64_t t = 0; t < tokens; ++t) {
          for (std::int64_t r = 0; r < rank; ++r) {
            double sum = 0;
            for (std::int64_t k = 0; k < width; ++k)
              sum += x.get(t, k) * (by_rank ? factor.get(r, k) : factor.get(k, r));
            want(t, r) = T(static_cast<float>(kScale * sum));
          }
        }
        auto got = under_every_schedule([&] {
          DeviceMatrix<T> s(tokens, rank, layout);
          low_rank_project<T>(x, factor, lies, kScale, s, tokens, width, rank, nullptr);
          return s;
        });
        expect_equivalent(got, want);
      }
    }
  }
}

struct Gradient {
  std::int64_t tokens, m, n;
};
const Gradient kGradients[] = {{0, 3, 40},    {1, 1, 1},     {31, 8, 72},   {33, 72, 8},   {100, 16, 130},
                               {257, 130, 5}, {600, 24, 65}, {513, 64, 80}, {1030, 7, 64}, {64, 200, 100}};

TYPED_TEST(CudaLowRank, GradientEqualsALoopInDouble) {
  using T = TypeParam;
  bool in_several_slots = false;
  for (const auto& [tokens, m, n] : kGradients) {
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens, " << m << " x " << n << ", gap " << layout.gap);
      auto p = DeviceMatrix<T>::random(tokens, m, 1, layout);
      auto q = DeviceMatrix<T>::random(tokens, n, 2, layout);
      DeviceMatrix<float> want(m, n);
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (std::int64_t t = 0; t < tokens; ++t) sum += p.get(t, i) * q.get(t, j);
          want(i, j) = static_cast<float>(kScale * sum);
        }
      }
      const std::size_t bytes = low_rank_gradient_bytes(tokens, m, n);
      in_several_slots = in_several_slots || bytes > 0;
      auto got = under_every_schedule([&] {
        std::vector<float> workspace(bytes / sizeof(float), NAN);
        DeviceMatrix<float> g(m, n);
        low_rank_gradient<T>(p, q, kScale, g.data(), tokens, m, n, workspace.data(), nullptr);
        return g;
      });
      EXPECT_LE(relative_error(got, want), 2e-6);
    }
  }
  EXPECT_TRUE(in_several_slots);
}

TEST(CudaLowRankWorkspace, DependsOnTheShapeAlone) {
  EXPECT_EQ(low_rank_gradient_bytes(4096, 16, 4096), std::size_t{4} * 16 * 4096 * 4);
  EXPECT_EQ(low_rank_gradient_bytes(4096, 4096, 16), low_rank_gradient_bytes(4096, 16, 4096));
  EXPECT_EQ(low_rank_gradient_bytes(200, 16, 4096), 0u);
  EXPECT_EQ(low_rank_gradient_bytes(0, 16, 4096), 0u);
}

}  // namespace
}  // namespace lomu::cuda

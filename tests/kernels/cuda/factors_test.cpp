// The kernels that move adapters' factors and low-rank activations between buffers.
#include <gtest/gtest.h>

#include <array>

#include "kernels/cuda/low_rank_moves.h"
#include "kernels/cuda/pack_factors.h"
#include "tests/kernels/cuda/device_matrix.h"

namespace lomu::cuda {
namespace {

using namespace lomu::test;

template <class T>
class CudaFactors : public testing::Test {};
TYPED_TEST_SUITE(CudaFactors, ActivationTypes);

/// Where one rectangle's numbers lie in a wider row, and which.
struct Placement {
  std::int64_t rows, cols, from_begin, from_cols;
  bool bias;
};

TYPED_TEST(CudaFactors, PackFactorsWritesEveryElementOfManyRectangles) {
  using T = TypeParam;
  const std::vector<Placement> placements = {{5, 64, 0, 16, false},     {33, 64, 16, 16, true},  {1, 64, 61, 1, true},
                                             {100, 9, 2, 7, false},     {3, 40, 0, 40, false},   {2, 130, 0, 0, false},
                                             {7, 8192, 0, 8192, false}, {2, 9001, 3, 8000, true}};
  for (const Layout layout : kLayouts) {
    SCOPED_TRACE(testing::Message() << "gap " << layout.gap);
    const auto pack = [&](std::vector<DeviceMatrix<T>>& targets, std::vector<DeviceMatrix<float>>& sources,
                          std::vector<DeviceMatrix<float>>& biases) {
      std::vector<FactorRectangle<T>> table;
      std::int32_t blocks = 0;
      for (std::size_t i = 0; i < placements.size(); ++i) {
        const Placement& p = placements[i];
        FactorRectangle<T> r;
        r.from = p.from_cols > 0 ? sources[i].data() : nullptr;
        r.bias = p.bias ? biases[i].data() : nullptr;
        r.to = targets[i].data();
        r.to_ld = p.cols + layout.gap;
        r.rows = static_cast<std::int32_t>(p.rows);
        r.cols = static_cast<std::int32_t>(p.cols);
        r.from_begin = static_cast<std::int32_t>(p.from_begin);
        r.from_cols = static_cast<std::int32_t>(p.from_cols);
        r.bias_begin = static_cast<std::int32_t>(p.cols - 2);
        r.factor = 0.75F;
        r.first_block = blocks;
        blocks += factor_blocks(r.rows, r.cols);
        table.push_back(r);
      }
      pack_factors<T>(table.data(), table.size(), blocks, nullptr);
    };
    std::vector<DeviceMatrix<T>> want, got;
    std::vector<DeviceMatrix<float>> sources, biases;
    for (std::size_t i = 0; i < placements.size(); ++i) {
      const Placement& p = placements[i];
      sources.push_back(DeviceMatrix<float>::random(p.rows, p.from_cols, i));
      biases.push_back(DeviceMatrix<float>::random(1, p.rows, 100 + i, {}, 0.3));
      got.emplace_back(p.rows, p.cols, layout);
      DeviceMatrix<T> whole(p.rows, p.cols, layout);
      for (std::int64_t row = 0; row < p.rows; ++row) {
        for (std::int64_t col = 0; col < p.cols; ++col) {
          const bool inside = col >= p.from_begin && col < p.from_begin + p.from_cols;
          whole(row, col) = T(inside ? 0.75F * sources[i](row, col - p.from_begin) : 0.0F);
        }
        if (!p.bias) continue;
        const float bias = biases[i](0, row);
        whole(row, p.cols - 2) = T(bias);
        whole(row, p.cols - 1) = T(bias - static_cast<float>(T(bias)));
        EXPECT_NEAR(whole.get(row, p.cols - 2) + whole.get(row, p.cols - 1), bias, 0x1p-16 * std::abs(bias));
      }
      want.push_back(std::move(whole));
    }
    pack(got, sources, biases);
    for (std::size_t i = 0; i < placements.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "rectangle " << i);
      expect_same_bits(got[i], want[i]);
    }
  }
}

TYPED_TEST(CudaFactors, SpareColumnsHoldLowRankActivationsZerosAndOnes) {
  using T = TypeParam;
  for (const std::int64_t tokens : {0, 1, 33}) {
    for (const std::int64_t rank : {1, 3, 16, 62, 64, 126}) {
      for (const bool bias : {false, true}) {
        for (const Layout layout : kLayouts) {
          const std::int64_t width = rank + (bias ? 2 : 0) <= 64 ? 64 : 128;
          SCOPED_TRACE(testing::Message() << tokens << " tokens, rank " << rank << ", bias " << bias);
          auto s = DeviceMatrix<T>::random(tokens, rank, 1, layout);
          DeviceMatrix<T> spare(tokens, width, layout), want(tokens, width, layout);
          for (std::int64_t i = 0; i < tokens; ++i) {
            for (std::int64_t j = 0; j < width; ++j) {
              want(i, j) = j < rank ? s(i, j) : T(bias && j >= width - 2 ? 1.0F : 0.0F);
            }
          }
          fill_spare_columns<T>(s, rank, bias, spare, width, tokens, nullptr);
          expect_same_bits(spare, want);

          DeviceMatrix<T> in_place(tokens, width, layout);
          for (std::int64_t i = 0; i < tokens; ++i) {
            for (std::int64_t j = 0; j < rank; ++j) in_place(i, j) = s(i, j);
          }
          fill_spare_columns<T>(in_place, rank, bias, in_place, width, tokens, nullptr);
          expect_same_bits(in_place, want);
        }
      }
    }
  }
}

TEST(CudaFactors, RunsArriveWhereTheyBelong) {
  for (const std::int64_t offset : {0, 1}) {
    std::vector<DeviceMatrix<float>> from, to;
    std::vector<FloatRun> runs;
    for (const std::int64_t count : {4096, 1, 0, 1023, 5, 2048}) {
      const auto number = static_cast<std::uint64_t>(from.size());
      from.push_back(DeviceMatrix<float>::random(1, count, number, {0, offset}));
      to.emplace_back(1, count, Layout{0, offset});
    }
    for (std::size_t i = 0; i < from.size(); ++i) runs.push_back({from[i].data(), to[i].data(), from[i].cols()});
    copy_runs(runs, nullptr);
    for (std::size_t i = 0; i < from.size(); ++i) expect_same_bits(to[i], from[i]);
  }
}

}  // namespace
}  // namespace lomu::cuda

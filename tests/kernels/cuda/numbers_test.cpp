// Loss of logits, dropout, sums of squares, the first bad element, and the largest.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/cuda/dropout_rows.h"
#include "kernels/cuda/finite.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/softmax_loss.h"
#include "kernels/dropout.h"
#include "tests/kernels/cuda/device_matrix.h"

namespace lomu::cuda {
namespace {

using namespace test;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Shape {
  std::int64_t rows, cols;
};

// ---- softmax_loss ----

template <class Pair>
class CudaSoftmaxLoss : public testing::Test {};
template <class L, class T>
struct Types {
  using Logit = L;
  using Gradient = T;
};
using LossTypes = testing::Types<Types<float, float>, Types<float, BF16>, Types<BF16, BF16>>;
TYPED_TEST_SUITE(CudaSoftmaxLoss, LossTypes);

struct Loss {
  std::vector<double> losses;
  DeviceMatrix<float> gradient;
};
template <class L>
Loss loss_in_double(DeviceMatrix<L>& logits, const std::vector<std::int32_t>& targets, double grad_scale) {
  Loss want{{}, {logits.rows(), logits.cols()}};
  for (std::int64_t i = 0; i < logits.rows(); ++i) {
    const std::int64_t target = targets[static_cast<std::size_t>(i)];
    double top = -kInf, sum = 0;
    for (std::int64_t j = 0; j < logits.cols(); ++j) top = std::max(top, logits.get(i, j));
    for (std::int64_t j = 0; j < logits.cols(); ++j) sum += std::exp(logits.get(i, j) - top);
    want.losses.push_back(top - logits.get(i, target) + std::log(sum));
    for (std::int64_t j = 0; j < logits.cols(); ++j) {
      const double p = std::exp(logits.get(i, j) - top) / sum;
      want.gradient(i, j) = static_cast<float>(grad_scale * (p - (j == target ? 1 : 0)));
    }
  }
  return want;
}

TYPED_TEST(CudaSoftmaxLoss, EqualsALoopInDouble) {
  using L = typename TypeParam::Logit;
  using T = typename TypeParam::Gradient;
  const Shape shapes[] = {{0, 8}, {1, 1}, {2, 2}, {5, 31}, {2, 2048}, {3, 4999}, {2, 8200}};
  for (const auto& [rows, vocab] : shapes) {
    for (const Layout layout : kLayouts) {
      SCOPED_TRACE(testing::Message() << rows << " x " << vocab << ", gap " << layout.gap);
      auto logits = DeviceMatrix<L>::random(rows, vocab, 1, layout, 20);
      std::vector<std::int32_t> targets;
      for (std::int64_t i = 0; i < rows; ++i) targets.push_back(static_cast<std::int32_t>(i * 7919 % vocab));
      auto want = loss_in_double(logits, targets, 0.37);
      DeviceMatrix<float> losses(1, rows);
      auto got = under_every_schedule([&] {
        DeviceMatrix<T> gradient(rows, vocab, layout);
        losses = DeviceMatrix<float>(1, rows);
        softmax_loss<L, T>(logits, targets.data(), 0.37f, losses.data(), gradient, rows, vocab, nullptr);
        return gradient;
      });
      EXPECT_LE(relative_error(got, want.gradient), kTolerance<T>);
      got.expect_gaps_untouched();
      for (std::int64_t i = 0; i < rows; ++i) {
        EXPECT_NEAR(losses(0, i), want.losses[static_cast<std::size_t>(i)], 1e-5);
      }
      auto without = DeviceMatrix<float>(1, rows);
      softmax_loss<L, T>(logits, targets.data(), 0, without.data(), {}, rows, vocab, nullptr);
      expect_same_bits(without, losses);
      if constexpr (std::is_same_v<L, T>) {
        softmax_loss<L, T>(logits, targets.data(), 0.37f, without.data(), logits, rows, vocab, nullptr);
        expect_same_bits(without, losses);
        expect_same_bits(logits, got);
      }
    }
  }
}

TEST(CudaSoftmaxLossOfOddRows, KeepsMeaning) {
  // Certain and right; certain and wrong; a masked logit; an infinite one; a NaN; all of them masked but one.
  const std::vector<float> logits = {1000, 0, 0, 1000, 0, 0, -kInf, 0, 0, kInf, 0, 0, 0, kNaN, 0, -kInf, -kInf, 5};
  const std::vector<std::int32_t> targets = {0, 1, 1, 1, 0, 2};
  std::vector<float> losses(6, kNaN), gradient(18, kNaN);
  softmax_loss<float, float>({logits.data(), 3}, targets.data(), 1, losses.data(), {gradient.data(), 3}, 6, 3, nullptr);
  EXPECT_EQ(losses[0], 0);
  EXPECT_EQ(losses[1], 1000);
  EXPECT_FLOAT_EQ(losses[2], std::log(2.0f));
  EXPECT_EQ(gradient[6], 0);
  EXPECT_FLOAT_EQ(gradient[7], -0.5f);
  EXPECT_FALSE(std::isfinite(losses[3]));
  EXPECT_TRUE(std::isnan(losses[4]));
  EXPECT_EQ(losses[5], 0);
}

TEST(CudaSoftmaxLossOfALikelyTarget, KeepsItsDigits) {
  const std::vector<float> logits = {12, 0};
  const std::vector<std::int32_t> targets = {0};
  std::vector<float> loss = {kNaN};
  softmax_loss<float, float>({logits.data(), 2}, targets.data(), 1, loss.data(), {}, 1, 2, nullptr);
  EXPECT_NEAR(loss[0], std::log1p(std::exp(-12.0)), 1e-7);
}

// ---- dropout_rows ----

template <class T>
class CudaDropout : public testing::Test {};
TYPED_TEST_SUITE(CudaDropout, ActivationTypes);

TYPED_TEST(CudaDropout, KeepsTheHostsElements) {
  using T = TypeParam;
  const Shape shapes[] = {{0, 8}, {1, 1}, {7, 33}, {3, 2056}, {40, 100}};
  for (const float p : {0.0f, 1e-3f, 0.1f, 0.5f, 0.999999f}) {
    for (const auto& [rows, cols] : shapes) {
      for (const Layout layout : kLayouts) {
        const Dropout dropout{p, 0x1234567890abcdefull, (std::int64_t{1} << 33) + 5};
        auto x = DeviceMatrix<T>::random(rows, cols, 1, layout, 1, 2);  // no zeros
        DeviceMatrix<T> want(rows, cols, layout), y(rows, cols, layout);
        const auto factor = static_cast<float>(1.0 / (1.0 - static_cast<double>(p)));
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < cols; ++j) {
            const bool keep = dropout_keep(dropout.key, dropout.first_row + i, j, p);
            want(i, j) = T(keep ? static_cast<float>(x(i, j)) * factor : 0.0f);
          }
        }
        dropout_rows<T>(dropout, x, y, rows, cols, nullptr);
        expect_same_bits(y, want);
        if constexpr (std::is_same_v<T, float>) {
          auto sum = DeviceMatrix<float>::random(rows, cols, 2, layout);
          auto sum_want = sum;
          for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < cols; ++j) sum_want(i, j) += want(i, j);
          }
          add_dropped_rows(dropout, x, sum, rows, cols, nullptr);
          EXPECT_LE(relative_error(sum, sum_want), 1e-6);
          sum.expect_gaps_untouched();
        }
        dropout_rows<T>(dropout, x, x, rows, cols, nullptr);
        expect_same_bits(x, want);
      }
    }
  }
}

// ---- finite.h ----

template <class T>
class CudaFinite : public testing::Test {};
TYPED_TEST_SUITE(CudaFinite, ActivationTypes);

// A block takes 8192 elements before there is a second one.
const std::int64_t kLengths[] = {0, 1, 7, 8, 2047, 8192, 8193, 30011};

TYPED_TEST(CudaFinite, SumOfSquaresIsExactInDouble) {
  using T = TypeParam;
  for (const std::int64_t n : kLengths) {
    std::vector<double> results;
    for (const std::int64_t offset : {0, 1}) {
      auto x = DeviceMatrix<T>::random(1, n, 1, {0, offset});
      double want = 0;
      for (std::int64_t i = 0; i < n; ++i) want += x.get(0, i) * x.get(0, i);
      emu::for_each_schedule([&](unsigned) {
        std::vector<double> scratch(kFiniteScratch, kNaN);
        results.push_back(kNaN);
        sum_squares<T>(x.data(), n, scratch.data(), &results.back(), nullptr);
        EXPECT_NEAR(results.back(), want, 1e-12 * want);
        EXPECT_EQ(results.back(), results.front());
      });
    }
  }
}

TYPED_TEST(CudaFinite, FindsTheFirstBadElement) {
  using T = TypeParam;
  for (const std::int64_t n : kLengths) {
    auto x = DeviceMatrix<T>::random(1, n, 1, {0, n % 2});
    const auto first_bad = [&] {
      std::vector<std::int64_t> scratch(kFiniteScratch, -1);
      std::vector<std::int64_t> result = {-1};
      first_not_finite<T>(x.data(), n, scratch.data(), result.data(), nullptr);
      return result[0];
    };
    EXPECT_EQ(first_bad(), n);
    for (const std::int64_t at : {n - 1, n / 2, n / 3}) {
      if (n == 0) break;
      x(0, at) = T(at % 2 == 0 ? -kInf : kNaN);
      EXPECT_EQ(first_bad(), at);
    }
  }
}

TEST(CudaFiniteSquares, OfTheLargestNumbersDoNotOverflow) {
  const std::vector<float> x(5000, std::numeric_limits<float>::max());
  std::vector<double> scratch(kFiniteScratch);
  std::vector<double> result = {kNaN};
  sum_squares<float>(x.data(), 5000, scratch.data(), result.data(), nullptr);
  EXPECT_TRUE(std::isfinite(result[0]));
}

// ---- sampling.h ----

template <class T>
class CudaArgmax : public testing::Test {};
TYPED_TEST_SUITE(CudaArgmax, ActivationTypes);

TYPED_TEST(CudaArgmax, TakesTheLowestAmongEquals) {
  using T = TypeParam;
  const Shape shapes[] = {{0, 8}, {1, 1}, {3, 31}, {5, 2048}, {3, 5001}};
  for (const auto& [rows, cols] : shapes) {
    for (const Layout layout : kLayouts) {
      auto x = DeviceMatrix<T>::random(rows, cols, 1, layout);  // 2048 values, so large rows have ties
      std::vector<std::int32_t> want;
      for (std::int64_t i = 0; i < rows; ++i) {
        std::int64_t best = 0;
        for (std::int64_t j = 1; j < cols; ++j) {
          if (x.get(i, j) > x.get(i, best)) best = j;
        }
        want.push_back(static_cast<std::int32_t>(best));
      }
      emu::for_each_schedule([&](unsigned) {
        std::vector<std::int32_t> got(static_cast<std::size_t>(rows), -1);
        argmax<T>(x, got.data(), rows, cols, nullptr);
        EXPECT_EQ(got, want);
      });
    }
  }
}

TEST(CudaArgmaxOfOddRows, PrefersNumbers) {
  const std::vector<float> x = {kNaN, -kInf, kNaN, kNaN, kNaN, kNaN, -0.0f, 0.0f, -1, -5, -2, -2, 3, kInf, kNaN};
  std::vector<std::int32_t> got(5, -1);
  argmax<float>({x.data(), 3}, got.data(), 5, 3, nullptr);
  EXPECT_EQ(got, (std::vector<std::int32_t>{1, 0, 0, 1, 1}));
}

}  // namespace
}  // namespace lomu::cuda

// AdamW and gradient norms on the device, in emulation, against the CPU's.
#include "kernels/cuda/adamw.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cuda/emulation/schedule.h"
#include "kernels/error.h"
#include "tests/kernels/cuda/optimizer_pairs.h"

namespace lomu::testing {
namespace {

OptimizerOptions cpu_options() {
  OptimizerOptions options;
  options.name = OptimizerKind::kAdamW;
  options.lr = 1e-3;
  options.weight_decay = 0.1;
  options.max_grad_norm = 1e-3;
  return options;
}
cuda::AdamwOptions device_options_of(const OptimizerOptions& o) {
  return {o.beta1, o.beta2, o.eps, o.weight_decay, o.max_grad_norm, cuda::Precision::kDouble};
}

std::vector<OwnedPair> mixed_pairs() {
  std::mt19937_64 random(3);
  std::vector<OwnedPair> pairs;
  for (const auto& [m, n, r] : {std::array{1, 1, 1}, {33, 7, 3}, {40, 1100, 16}, {5, 4200, 2}}) {
    OwnedPair pair = random_pair(random, m, n, r);
    pair.give_state(*make_optimizer(cpu_options()));
    for (float& x : pair.state) x = 1e-4f;
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

std::vector<cuda::PairDesc> descs_of(std::vector<OwnedPair>& pairs) {
  std::vector<cuda::PairDesc> descs;
  for (OwnedPair& pair : pairs) descs.push_back(adamw_pair(pair));
  return descs;
}
std::vector<PairView> views_of(std::vector<OwnedPair>& pairs) {
  std::vector<PairView> views;
  for (OwnedPair& pair : pairs) views.push_back(pair.view());
  return views;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want, float relative) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], relative * std::abs(want[i])) << i;
}

TEST(CudaAdamw, IsEquivalentToCpu) {
  for (const auto precision : {cuda::Precision::kDouble, cuda::Precision::kTwoFloat}) {
    for (const double max_norm : {0.0, 1e-3}) {
      OptimizerOptions options = cpu_options();
      options.max_grad_norm = max_norm;
      cuda::AdamwOptions on_device = device_options_of(options);
      on_device.precision = precision;
      std::vector<OwnedPair> got = mixed_pairs(), want = mixed_pairs();
      const auto reports = adamw_on_device(descs_of(got), on_device, options.lr, 3);

      const std::vector<PairView> views = views_of(want);
      double norm_squared = 0.0;
      for (const double n : grad_norm_squared(views)) norm_squared += n;
      StepReport report;
      make_optimizer(options)->step(views, {3, options.lr, std::sqrt(norm_squared)}, report);
      const bool exact = precision == cuda::Precision::kDouble;
      for (std::size_t i = 0; i < got.size(); ++i) {
        SCOPED_TRACE(i);
        const float relative = exact ? 1.2e-7f : 1e-6f;
        expect_near(got[i].left, want[i].left, relative);
        expect_near(got[i].right, want[i].right, relative);
        expect_near(got[i].state, want[i].state, relative);
        const double tolerance = exact ? 1e-12 : 1e-5, expected = report.pairs[i].update_norm_squared;
        EXPECT_NEAR(reports[2 * i].step_norm_squared + reports[2 * i + 1].step_norm_squared, expected,
                    tolerance * expected);
        const double relative_step = report.pairs[i].relative_step_right;
        EXPECT_NEAR(std::sqrt(reports[2 * i + 1].step_norm_squared / reports[2 * i + 1].factor_norm_squared),
                    relative_step, tolerance * relative_step);
      }
    }
  }
}

TEST(CudaAdamw, HasTheSameBitsUnderEveryScheduleAloneAndInCompany) {
  cuda::AdamwOptions options = device_options_of(cpu_options());
  options.max_grad_norm = 0.0;
  std::vector<OwnedPair> want = mixed_pairs();
  const auto reports = adamw_on_device(descs_of(want), options, 1e-3, 1);
  emu::for_each_schedule([&](unsigned seed) {
    SCOPED_TRACE(seed);
    std::vector<OwnedPair> got = mixed_pairs();
    for (std::size_t i = 0; i < got.size(); ++i) {
      const auto alone = adamw_on_device({adamw_pair(got[i])}, options, 1e-3, 1);
      EXPECT_EQ(got[i].left, want[i].left);
      EXPECT_EQ(got[i].right, want[i].right);
      EXPECT_EQ(got[i].state, want[i].state);
      EXPECT_EQ(alone[1].step_norm_squared, reports[2 * i + 1].step_norm_squared);
    }
  });
}

TEST(CudaAdamw, NonFiniteGradientLeavesEverythingUntouched) {
  std::vector<OwnedPair> pairs = mixed_pairs();
  pairs[1].grad_left[4] = std::numeric_limits<float>::infinity();
  const std::vector<OwnedPair> before = pairs;
  const auto reports = adamw_on_device(descs_of(pairs), device_options_of(cpu_options()), 1e-3, 1);
  EXPECT_TRUE(std::isnan(reports[0].step_norm_squared));
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_EQ(pairs[i].left, before[i].left);
    EXPECT_EQ(pairs[i].right, before[i].right);
    EXPECT_EQ(pairs[i].state, before[i].state);
  }
}

TEST(CudaAdamw, WritesPackedCopies) {
  std::vector<OwnedPair> pairs = mixed_pairs();
  OwnedPair& pair = pairs[1];  // 33 x 7, rank 3: lines end within groups of four
  std::vector<BF16> left(33 * 5, BF16(7.0f)), right(3 * 8, BF16(7.0f));
  cuda::PairDesc desc = adamw_pair(pair);
  desc.left.packed = {left.data(), 5, 0.5f};
  desc.right.packed = {right.data(), 8, 1.0f};
  adamw_on_device({desc}, device_options_of(cpu_options()), 1e-3, 1);
  for (std::size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(left[i].bits, BF16(i % 5 < 3 ? 0.5f * pair.left[i / 5 * 3 + i % 5] : 7.0f).bits) << i;
  }
  for (std::size_t i = 0; i < right.size(); ++i) {
    EXPECT_EQ(right[i].bits, BF16(i % 8 < 7 ? pair.right[i / 8 * 7 + i % 8] : 7.0f).bits) << i;
  }
}

TEST(CudaAdamw, RefusesWhatItCannotStep) {
  std::vector<OwnedPair> pairs = mixed_pairs();
  cuda::PairDesc desc = adamw_pair(pairs[1]);
  cuda::AdamwOptions options;
  options.eps = 0.0;
  EXPECT_THROW(cuda::AdamwPlan(std::span(&desc, 1), options), UsageError);
  EXPECT_THROW(cuda::adamw_step({}, 1e-3, 0), UsageError);
  const cuda::AdamwPlan plan(std::span(&desc, 1), {});
  EXPECT_THROW(plan.step(nullptr, nullptr, nullptr, nullptr, nullptr), Error);
  desc.left.second_moment = nullptr;
  EXPECT_THROW(cuda::AdamwPlan(std::span(&desc, 1), {}), UsageError);
}

TEST(CudaGradientNorms, AreThoseOfTheCpuAndRepeatable) {
  std::vector<OwnedPair> pairs = mixed_pairs();
  const std::vector<double> want = grad_norm_squared(views_of(pairs));
  const std::vector<double> first = gradient_norms_on_device(descs_of(pairs));
  ASSERT_EQ(first.size(), want.size() + 1);
  double total = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(first[i], want[i], 1e-13 * want[i]);
    total += first[i];
  }
  EXPECT_EQ(first.back(), total);
  emu::for_each_schedule([&](unsigned) { EXPECT_EQ(gradient_norms_on_device(descs_of(pairs)), first); });
}

}  // namespace
}  // namespace lomu::testing

// LoRA-Muon on the device, in emulation, against its definition and against the CPU's optimizer.
#include "kernels/cuda/lora_muon.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "engine/optimizers/gauge_balance.h"
#include "engine/optimizers/vector_file.h"
#include "kernels/cuda/emulation/schedule.h"
#include "kernels/error.h"
#include "tests/kernels/cuda/optimizer_pairs.h"

namespace lomu::testing {
namespace {

using cuda::LoraMuonHalfReport;
using cuda::LoraMuonStatus;
OptimizerOptions plain_options() {
  OptimizerOptions options;
  options.lr = 0.02;
  options.balance_every = 0;
  return options;
}

/// Largest error of the four arrays of `got` against the reference.
double error_of(const ReferenceProblem& problem, const ReferenceState& expected, const ReferenceState& got) {
  const auto error = [&](auto field, std::int64_t rows) {
    return step_error(Dense((got.*field).data(), rows, problem.r), Dense((expected.*field).data(), rows, problem.r),
                      Dense((problem.before.*field).data(), rows, problem.r));
  };
  return std::max({error(&ReferenceState::left, problem.m), error(&ReferenceState::right, problem.n),
                   error(&ReferenceState::momentum_left, problem.m),
                   error(&ReferenceState::momentum_right, problem.n)});
}

/// The same after one step on the device.
double error_against_reference(OwnedPair pair, const OptimizerOptions& options, cuda::Precision precision) {
  const ReferenceProblem problem = problem_of(pair, options);
  const ReferenceState expected = reference_step(problem);
  cuda::LoraMuonOptions on_device = device_options(options);
  on_device.precision = precision;
  for (const LoraMuonHalfReport& report : lora_muon_on_device({&pair}, on_device, options.lr)) {
    EXPECT_EQ(report.status, LoraMuonStatus::kDone);
  }
  return error_of(problem, expected, problem_of(pair, options).before);
}

void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(want[i])) << "element " << i;
  }
}
void expect_same_bits(const OwnedPair& got, const OwnedPair& want) {
  expect_same_bits(got.left, want.left);
  expect_same_bits(got.right, want.right);
  expect_same_bits(got.state, want.state);
}

struct Shape {
  std::int64_t m, n, r;
};
class CudaLoraMuonShapes : public ::testing::TestWithParam<Shape> {};

TEST_P(CudaLoraMuonShapes, IsEquivalentToReference) {
  const auto [m, n, r] = GetParam();
  std::mt19937_64 random(static_cast<std::uint64_t>(m * 1000003 + n * 1009 + r));
  const bool large = r > 33;  // half a second each in emulation
  for (const bool nesterov : {false, true}) {
    if (large && !nesterov) continue;
    OptimizerOptions options = plain_options();
    options.nesterov = nesterov;
    options.weight_decay = nesterov ? 0.1 : 0.0;
    OwnedPair pair = random_pair(random, m, n, r);
    pair.scale = nesterov ? 2.0 : 0.25;
    EXPECT_LT(error_against_reference(pair, options, cuda::Precision::kDouble), 1e-6);
    if (large || !nesterov) continue;
    EXPECT_LT(error_against_reference(pair, options, cuda::Precision::kTwoFloat), 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaLoraMuonShapes,
                         ::testing::Values(Shape{1, 1, 1}, Shape{5, 3, 2}, Shape{33, 31, 3}, Shape{100, 2, 2},
                                           Shape{40, 7, 7}, Shape{7, 40, 7}, Shape{64, 132, 8}, Shape{1025, 31, 16},
                                           Shape{31, 1056, 17}, Shape{100, 90, 24}, Shape{57, 130, 33},
                                           Shape{96, 70, 64}, Shape{70, 73, 65}),
                         [](const auto& which) {
                           const Shape& s = which.param;
                           return std::to_string(s.m) + "x" + std::to_string(s.n) + "r" + std::to_string(s.r);
                         });

TEST(CudaLoraMuon, ReferenceCasesHold) {
  for (const char* file : {"plain_steps.json", "hard_steps.json"}) {
    for (const LoraMuonCase& c : read_lora_muon_cases(std::string(LOMU_TEST_DATA "/lora_muon/") + file)) {
      SCOPED_TRACE(c.name);
      const ReferenceProblem& p = c.problem;
      OwnedPair pair(p.m, p.n, p.r);
      pair.scale = p.scale;
      pair.left_started_zero = p.damping_right.has_value();
      const auto dense = [&p](const std::vector<double>& x, std::int64_t rows) { return Dense(x.data(), rows, p.r); };
      set_left(pair, dense(p.before.left, p.m));
      set_right(pair, dense(p.before.right, p.n));
      set_gradients(pair, dense(p.grad_left, p.m), dense(p.grad_right, p.n));
      set_momenta(pair, dense(p.before.momentum_left, p.m), dense(p.before.momentum_right, p.n));
      OptimizerOptions options = plain_options();
      options.momentum = p.momentum;
      options.weight_decay = p.weight_decay;
      options.damping = p.damping_right;
      lora_muon_on_device({&pair}, device_options(options), p.lr);
      EXPECT_LT(error_of(p, c.expected, problem_of(pair, options).before), 1e-6);
    }
  }
}

TEST(CudaLoraMuon, DampedStepsAreEquivalentToReference) {
  std::mt19937_64 random(11);
  for (const bool left_zero : {true, false}) {
    for (const double size : {0.0, 1e-4, 1.0}) {
      OwnedPair pair = random_pair(random, 60, 44, 6);
      pair.left_started_zero = left_zero;
      pair.right_started_zero = !left_zero;
      for (float& x : left_zero ? pair.left : pair.right) x *= static_cast<float>(size);
      for (const auto precision : {cuda::Precision::kDouble, cuda::Precision::kTwoFloat}) {
        EXPECT_LT(error_against_reference(pair, plain_options(), precision), 1e-6);
      }
    }
  }
}

TEST(CudaLoraMuon, IllConditionedMomentumCostsNoAccuracy) {
  std::mt19937_64 random(7);
  for (const double condition : {1e2, 1e3, 1e4}) {
    OwnedPair pair = random_pair(random, 96, 64, 16);
    set_momenta(pair, Dense(96, 16), Dense(64, 16));
    set_gradients(pair, random_with_condition(random, 96, 16, condition),
                  random_with_condition(random, 64, 16, condition));
    EXPECT_LT(error_against_reference(pair, plain_options(), cuda::Precision::kDouble), 1e-6) << condition;
  }
}

TEST(CudaLoraMuon, MovesOnlyTheDirectionsOfADeficientGradient) {
  std::mt19937_64 random(8);
  OwnedPair pair = random_pair(random, 50, 40, 12);
  set_momenta(pair, Dense(50, 12), Dense(40, 12));
  for (std::size_t i = 0; i < pair.grad_left.size(); ++i) {  // of rank 1
    pair.grad_left[i] = 1e-3f * static_cast<float>(1 + i / 12 % 7) * static_cast<float>(1 + i % 12);
  }
  EXPECT_LT(error_against_reference(pair, plain_options(), cuda::Precision::kDouble), 1e-6);
}

TEST(CudaLoraMuon, TinyAndHugeNumbersAreSteppedAlike) {
  std::mt19937_64 random(9);
  for (const float size : {1e-12f, 1e6f}) {
    for (const auto precision : {cuda::Precision::kDouble, cuda::Precision::kTwoFloat}) {
      OwnedPair pair = random_pair(random, 40, 30, 5);
      for (float& x : pair.grad_left) x *= size;
      for (float& x : pair.grad_right) x *= size;
      for (float& x : pair.state) x *= size;
      EXPECT_LT(error_against_reference(pair, plain_options(), precision), 1e-6) << size;
    }
  }
}

/// The pairs of the tests below: ranks of all kinds of panels, several tiles, several pairs of a rank.
std::vector<OwnedPair> mixed_pairs() {
  std::mt19937_64 random(21);
  std::vector<OwnedPair> pairs;
  for (const Shape& s : {Shape{40, 33, 8}, Shape{1030, 24, 2}, Shape{50, 60, 34}, Shape{33, 64, 17}}) {
    pairs.push_back(random_pair(random, s.m, s.n, s.r));
    pairs.back().scale = 0.5;
  }
  pairs[2].left_started_zero = true;
  for (float& x : pairs[2].left) x = 0.0f;
  return pairs;
}
PairRefs refs(std::vector<OwnedPair>& pairs) {
  PairRefs out;
  for (OwnedPair& pair : pairs) out.push_back(&pair);
  return out;
}

OptimizerOptions full_options() {
  OptimizerOptions options = plain_options();
  options.weight_decay = 0.1;
  options.max_grad_norm = 1e-3;
  return options;
}

TEST(CudaLoraMuon, MixedRanksAreEquivalentToCpu) {
  for (const Orthogonalizer orthogonalizer : {Orthogonalizer::kExact, Orthogonalizer::kNewtonSchulz}) {
    OptimizerOptions options = full_options();
    options.orthogonalizer = orthogonalizer;
    std::vector<OwnedPair> got = mixed_pairs(), want = mixed_pairs();
    const auto reports = lora_muon_on_device(refs(got), device_options(options), options.lr, true);

    const std::unique_ptr<Optimizer> optimizer = make_optimizer(options);
    std::vector<PairView> views;
    for (OwnedPair& pair : want) views.push_back(pair.view());
    double norm_squared = 0.0;
    for (const double n : grad_norm_squared(views)) norm_squared += n;
    StepReport report;
    optimizer->step(views, {1, options.lr, std::sqrt(norm_squared)}, report);
    for (std::size_t i = 0; i < want.size(); ++i) {
      SCOPED_TRACE(i);
      const std::span<float> state(want[i].state);
      const auto left_size = static_cast<std::size_t>(want[i].m * want[i].r);
      balance_gauge(views[i], state.first(left_size), state.subspan(left_size));
      const OwnedPair before = mixed_pairs()[i];
      const ReferenceProblem problem = problem_of(before, options);
      EXPECT_LT(error_of(problem, problem_of(want[i], options).before, problem_of(got[i], options).before), 1e-6);

      const LoraMuonHalfReport &left = reports[2 * i], &right = reports[2 * i + 1];
      const PairReport& expected = report.pairs[i];
      EXPECT_EQ(left.status, LoraMuonStatus::kDone);
      EXPECT_EQ(right.status, LoraMuonStatus::kDone);
      EXPECT_EQ(left.cholesky_raises + right.cholesky_raises, expected.cholesky_raises);
      EXPECT_NEAR(left.grad_norm_squared + right.grad_norm_squared, expected.grad_norm_squared,
                  1e-12 * expected.grad_norm_squared);
      EXPECT_NEAR(left.step_norm_squared + right.step_norm_squared, expected.update_norm_squared,
                  1e-6 * expected.update_norm_squared);
      const auto relative = [](const LoraMuonHalfReport& r) {
        return r.factor_norm_squared > 0.0 ? std::sqrt(r.step_norm_squared / r.factor_norm_squared) : 0.0;
      };
      EXPECT_NEAR(relative(left), expected.relative_step_left, 1e-6 * expected.relative_step_left);
      EXPECT_NEAR(relative(right), expected.relative_step_right, 1e-6 * expected.relative_step_right);
    }
  }
}

TEST(CudaLoraMuon, HasTheSameBitsUnderEverySchedule) {
  std::vector<OwnedPair> want = mixed_pairs();
  lora_muon_on_device(refs(want), device_options(full_options()), 0.02, true);
  emu::for_each_schedule([&](unsigned seed) {
    SCOPED_TRACE(seed);
    std::vector<OwnedPair> got = mixed_pairs();
    lora_muon_on_device(refs(got), device_options(full_options()), 0.02, true);
    for (std::size_t i = 0; i < got.size(); ++i) expect_same_bits(got[i], want[i]);
  });
}

TEST(CudaLoraMuon, HasTheSameBitsAloneAndInCompany) {
  OptimizerOptions options = full_options();
  options.max_grad_norm = 0.0;
  std::vector<OwnedPair> together = mixed_pairs(), alone = mixed_pairs();
  lora_muon_on_device(refs(together), device_options(options), 0.02, true);
  for (std::size_t i = 0; i < alone.size(); ++i) {
    lora_muon_on_device({&alone[i]}, device_options(options), 0.02, true);
    expect_same_bits(alone[i], together[i]);
  }
}

TEST(CudaLoraMuon, TakesAnyAlignment) {
  OwnedPair want = mixed_pairs()[0];
  lora_muon_on_device({&want}, device_options(plain_options()), 0.02);
  OwnedPair got = mixed_pairs()[0];
  const auto moved = [](std::vector<float>& x) {
    x.insert(x.begin(), std::numeric_limits<float>::quiet_NaN());
    return x.data() + 1;
  };
  cuda::PairDesc desc = lora_muon_pair(got);
  std::vector<float> momentum_right(desc.right.first_moment, got.state.data() + got.state.size());
  desc.left.factor = moved(got.left);
  desc.left.grad = moved(got.grad_left);
  desc.right.factor = moved(got.right);
  desc.right.grad = moved(got.grad_right);
  desc.right.first_moment = moved(momentum_right);
  lora_muon_on_device(std::vector{desc}, device_options(plain_options()), 0.02);
  got.left.erase(got.left.begin());
  got.right.erase(got.right.begin());
  expect_same_bits(got.left, want.left);
  expect_same_bits(got.right, want.right);
}

TEST(CudaLoraMuon, NonFiniteGradientLeavesEverythingUntouched) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const double max_norm : {0.0, 1.0}) {
      OptimizerOptions options = full_options();
      options.max_grad_norm = max_norm;
      std::vector<OwnedPair> pairs = mixed_pairs();
      pairs[3].grad_right.back() = bad;
      std::vector<OwnedPair> before = pairs;
      const auto reports = lora_muon_on_device(refs(pairs), device_options(options), 0.02, true);
      EXPECT_EQ(reports[7].status, LoraMuonStatus::kGradientNotFinite);
      EXPECT_EQ(reports[0].status, max_norm > 0.0 ? LoraMuonStatus::kGradientNotFinite : LoraMuonStatus::kDone);
      for (std::size_t i = 0; i < pairs.size(); ++i) expect_same_bits(pairs[i], before[i]);
    }
  }
}

TEST(CudaLoraMuon, SaysWhyAPairCannotBeStepped) {
  OwnedPair pair = mixed_pairs()[0];
  pair.left[3] = std::numeric_limits<float>::quiet_NaN();
  auto reports = lora_muon_on_device({&pair}, device_options(plain_options()), 0.02);
  EXPECT_EQ(reports[0].status, LoraMuonStatus::kFactorNotFinite);
  EXPECT_EQ(reports[1].status, LoraMuonStatus::kDone);

  pair = mixed_pairs()[0];
  for (float& x : pair.left) x = 0.0f;  // though it did not start so
  const OwnedPair before = pair;
  reports = lora_muon_on_device({&pair}, device_options(plain_options()), 0.02);
  EXPECT_EQ(reports[1].status, LoraMuonStatus::kPartnerZero);
  expect_same_bits(pair, before);
}

TEST(CudaLoraMuon, CountsTheShiftsOfASingularMetric) {
  OwnedPair pair = mixed_pairs()[0];
  for (std::size_t i = 0; i < pair.left.size(); ++i) pair.left[i] = pair.left[i / 8 * 8];  // of rank 1
  const auto reports = lora_muon_on_device({&pair}, device_options(plain_options()), 0.02);
  EXPECT_EQ(reports[0].cholesky_raises, 0);
  EXPECT_GT(reports[1].cholesky_raises, 0);
  EXPECT_EQ(reports[1].status, LoraMuonStatus::kDone);
  for (const float x : pair.right) EXPECT_TRUE(std::isfinite(x));
}

TEST(CudaLoraMuon, AZeroLearningRateMovesTheMomentumAlone) {
  OwnedPair pair = mixed_pairs()[0];
  const OwnedPair before = pair;
  lora_muon_on_device({&pair}, device_options(plain_options()), 0.0);
  EXPECT_EQ(pair.left, before.left);
  EXPECT_EQ(pair.right, before.right);
  EXPECT_FLOAT_EQ(pair.state[0], 0.9f * before.state[0] + 0.1f * before.grad_left[0]);
}

TEST(CudaLoraMuon, BalanceIsEquivalentToCpu) {
  for (const std::int64_t r : {3, 16, 20}) {
    std::mt19937_64 random(5);
    OwnedPair got = random_pair(random, 90, 77, r);
    for (float& x : got.left) x *= 100.0f;
    const OptimizerOptions options = plain_options();
    lora_muon_on_device({&got}, device_options(options), options.lr);
    OwnedPair want = got;
    const auto left_size = static_cast<std::size_t>(want.m * want.r);
    const std::span<float> state(want.state);
    EXPECT_NE(balance_gauge(want.view(), state.first(left_size), state.subspan(left_size)), 1.0);

    got = random_pair(random = std::mt19937_64(5), 90, 77, r);
    for (float& x : got.left) x *= 100.0f;
    lora_muon_on_device({&got}, device_options(options), options.lr, true);
    expect_same_bits(got, want);
  }
}

TEST(CudaLoraMuon, WritesPackedCopies) {
  for (const std::int64_t r : {3, 16}) {
    std::mt19937_64 random(6);
    OwnedPair pair = random_pair(random, 37, 44, r);
    const BF16 untouched(7.0f);
    const std::int64_t left_stride = 24, right_stride = 48;
    std::vector<BF16> left(static_cast<std::size_t>(37 * left_stride), untouched);
    std::vector<BF16> right(static_cast<std::size_t>(r * right_stride), untouched);
    cuda::PairDesc desc = lora_muon_pair(pair);
    desc.left.packed = {left.data(), left_stride, 2.0f};
    desc.right.packed = {right.data(), right_stride, 1.0f};
    for (float& x : pair.left) x *= 64.0f;  // so that the balance has something to do
    lora_muon_on_device(std::vector{desc}, device_options(plain_options()), 0.02, true);
    const auto expect_copy = [&](const std::vector<BF16>& copy, std::int64_t stride, const std::vector<float>& factor,
                                 std::int64_t line, float multiplier) {
      for (std::size_t i = 0; i < copy.size(); ++i) {
        const auto at = static_cast<std::int64_t>(i) % stride, row = static_cast<std::int64_t>(i) / stride;
        const BF16 want = at < line ? BF16(multiplier * factor[static_cast<std::size_t>(row * line + at)]) : untouched;
        ASSERT_EQ(copy[i].bits, want.bits) << i;
      }
    };
    expect_copy(left, left_stride, pair.left, r, 2.0f);
    expect_copy(right, right_stride, pair.right, 44, 1.0f);
  }
}

TEST(CudaLoraMuon, RefusesWhatItCannotStep) {
  OwnedPair pair(10, 10, 4);
  pair.state.resize(80);
  const auto refuses = [&](auto change, const cuda::LoraMuonOptions& options = {}) {
    cuda::PairDesc desc = lora_muon_pair(pair);
    change(desc);
    EXPECT_THROW(cuda::LoraMuonPlan(std::span(&desc, 1), options), UsageError);
  };
  refuses([](cuda::PairDesc& d) { d.r = 11; });
  refuses([](cuda::PairDesc& d) { d.r = 257; });
  refuses([](cuda::PairDesc& d) { d.m = 0; });
  refuses([](cuda::PairDesc& d) { d.scale = 0.0; });
  refuses([](cuda::PairDesc& d) { d.left.grad = nullptr; });
  refuses([](cuda::PairDesc& d) { d.left_started_zero = d.right_started_zero = true; });
  cuda::LoraMuonOptions undamped;
  undamped.damping.reset();
  refuses([](cuda::PairDesc& d) { d.left_started_zero = true; }, undamped);
  cuda::LoraMuonOptions wild;
  wild.momentum = 1.0;
  refuses([](cuda::PairDesc&) {}, wild);
  cuda::LoraMuonOptions clipped;
  clipped.max_grad_norm = 1.0;
  const std::vector desc{lora_muon_pair(pair)};
  const cuda::LoraMuonPlan plan(desc, clipped);
  EXPECT_THROW(plan.step(nullptr, nullptr, nullptr, nullptr, nullptr), Error);
}

}  // namespace
}  // namespace lomu::testing

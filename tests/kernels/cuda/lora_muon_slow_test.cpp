// Large ranks of LoRA-Muon on the device: seconds in emulation.
#include <gtest/gtest.h>

#include "kernels/cuda/emulation/schedule.h"
#include "tests/kernels/cuda/optimizer_pairs.h"

namespace lomu::testing {
namespace {

OptimizerOptions plain_options() {
  OptimizerOptions options;
  options.balance_every = 0;
  return options;
}

TEST(CudaLoraMuonSlow, LargeRanksAreEquivalentToCpu) {
  for (const std::int64_t r : {66, 150, 256}) {
    std::mt19937_64 random(256);
    const OptimizerOptions options = plain_options();
    OwnedPair got = random_pair(random, 300, 301, r);
    got.left_started_zero = true;
    const OwnedPair before = got;
    OwnedPair want = got;
    step_once(*make_optimizer(options), want, {1, options.lr, {}});
    for (const auto& report : lora_muon_on_device({&got}, device_options(options), options.lr)) {
      EXPECT_EQ(report.status, cuda::LoraMuonStatus::kDone);
    }
    EXPECT_LT(step_error(left_of(got), left_of(want), left_of(before)), 1e-6);
    EXPECT_LT(step_error(right_of(got), right_of(want), right_of(before)), 1e-6);
  }
}

TEST(CudaLoraMuonSlow, LargeRanksHaveTheSameBitsUnderEveryScheduleAndInAnyCompany) {
  std::mt19937_64 random(66);
  const OwnedPair first = random_pair(random, 75, 80, 66), other = random_pair(random, 40, 30, 5);
  OwnedPair want = first;
  lora_muon_on_device({&want}, device_options(plain_options()), 0.02, true);
  emu::for_each_schedule([&](unsigned seed) {
    SCOPED_TRACE(seed);
    OwnedPair got = first, company = other;
    lora_muon_on_device(PairRefs{&company, &got}, device_options(plain_options()), 0.02, true);
    EXPECT_EQ(got.left, want.left);
    EXPECT_EQ(got.right, want.right);
    EXPECT_EQ(got.state, want.state);
  });
}

}  // namespace
}  // namespace lomu::testing

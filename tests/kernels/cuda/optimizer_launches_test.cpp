// How many launches a step of all pairs of a rank takes, counted where the emulator notes work instead of doing it.
#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda/adamw.h"
#include "kernels/cuda/emulation/recording.h"
#include "kernels/cuda/gradient_norms.h"
#include "kernels/cuda/lora_muon.h"
#include "tests/kernels/cuda/optimizer_pairs.h"

namespace lomu::testing {
namespace {

/// Launches of `work`, none of which is carried out.
template <class Work>
std::size_t launches_of(Work work) {
  emu::Recorded recorded;
  emu::recording() = &recorded;
  work();
  emu::recording() = nullptr;
  return recorded.size();
}

class OptimizerLaunches : public ::testing::Test {
 protected:
  /// Pairs of all sorts of ranks, with the copies that products read.
  std::vector<cuda::PairDesc> descs(bool adamw) {
    std::vector<cuda::PairDesc> descs;
    for (OwnedPair& pair : pairs_) {
      pair.state.resize(static_cast<std::size_t>((adamw ? 2 : 1) * (pair.m + pair.n) * pair.r));
      cuda::PairDesc& desc = descs.emplace_back(adamw ? adamw_pair(pair) : lora_muon_pair(pair));
      desc.left.packed = {&copy_, 300, 0.5F};
      desc.right.packed = {&copy_, 3000, 1.0F};
    }
    return descs;
  }

  std::mt19937_64 random_{1};
  std::vector<OwnedPair> pairs_ = {random_pair(random_, 40, 33, 8), random_pair(random_, 2500, 1024, 16),
                                   random_pair(random_, 300, 260, 200)};
  BF16 copy_;
};

TEST_F(OptimizerLaunches, OfALoraMuonStepAreFourWithNormsAndCopies) {
  const auto pairs = descs(false);
  const cuda::GradientNorms norms(pairs);
  for (const bool newton_schulz : {false, true}) {
    cuda::LoraMuonOptions options;
    options.newton_schulz = newton_schulz;
    const cuda::LoraMuonPlan plan(pairs, options);
    EXPECT_EQ(launches_of([&] {
                norms.run(nullptr, nullptr, nullptr, nullptr);
                plan.step(nullptr, nullptr, nullptr, nullptr, nullptr);
              }),
              4u);
    EXPECT_EQ(launches_of([&] { plan.balance(nullptr, nullptr, nullptr); }), 1u);
  }
}

TEST_F(OptimizerLaunches, OfAnAdamwStepAreTwo) {
  const auto pairs = descs(true);
  const cuda::GradientNorms norms(pairs);
  const cuda::AdamwPlan plan(pairs, {});
  const double norm = 0;
  EXPECT_EQ(launches_of([&] {
              norms.run(nullptr, nullptr, nullptr, nullptr);
              plan.step(nullptr, nullptr, nullptr, &norm, nullptr);
            }),
            2u);
}

}  // namespace
}  // namespace lomu::testing

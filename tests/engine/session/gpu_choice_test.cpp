#include "engine/session/gpu_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/error.h"

namespace lomu {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<std::string> kTwo = {"0000:3b:00.0", "0000:5e:00.0"};

/// What every rank gets.
std::vector<int> choices(const std::vector<VisibleGpus>& ranks, GpuSharing sharing = GpuSharing::kOneEach) {
  std::vector<int> all;
  for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) all.push_back(choose_gpu(ranks, rank, sharing));
  return all;
}

/// What rank `rank` is told.
std::string refusal(const std::vector<VisibleGpus>& ranks, int rank = 0, GpuSharing sharing = GpuSharing::kOneEach) {
  try {
    choose_gpu(ranks, rank, sharing);
  } catch (const UsageError& error) {
    return std::string(error.what()) + " | " + error.hint();
  }
  return "nothing";
}

TEST(GpuChoice, RanksOfAMachineTakeItsGpusInTurn) {
  EXPECT_THAT(choices({{0, kTwo}, {0, kTwo}}), ElementsAre(0, 1));
  EXPECT_THAT(choices({{0, kTwo}, {1, kTwo}, {0, kTwo}, {1, kTwo}}), ElementsAre(0, 0, 1, 1));
}

TEST(GpuChoice, RanksThatWereEachShownAGpuTakeThatOne) {
  EXPECT_THAT(choices({{0, {kTwo[0]}}, {0, {kTwo[1]}}}), ElementsAre(0, 0));
}

TEST(GpuChoice, TwoRanksThatWereShownTheSameGpuAreRefused) {
  EXPECT_THAT(refusal({{0, {kTwo[0]}}, {0, {kTwo[1]}}, {0, {kTwo[0]}}}, 2),
              HasSubstr("ranks 0 and 2 were both given the GPU 0000:3b:00.0"));
}

TEST(GpuChoice, MoreRanksThanGpusAreRefusedUnlessTheyAreShared) {
  const std::vector<VisibleGpus> three = {{0, kTwo}, {0, kTwo}, {0, kTwo}};
  EXPECT_THAT(refusal(three),
              HasSubstr("3 ranks on a machine with 2 GPUs | start one rank for each GPU (mpirun -np 2)"));
  EXPECT_THAT(choices(three, GpuSharing::kShared), ElementsAre(0, 1, 0));
}

TEST(GpuChoice, AGpuWithoutARankIsRefusedInATrainingJobAlone) {
  EXPECT_THAT(refusal({{0, kTwo}}), HasSubstr("1 rank on a machine with 2 GPUs | start one rank for each GPU (mpirun "
                                              "-np 2"));
  EXPECT_THAT(refusal({{0, kTwo}}), HasSubstr("CUDA_VISIBLE_DEVICES=0"));
  EXPECT_THAT(choices({{0, kTwo}}, GpuSharing::kAtMostOne), ElementsAre(0));
}

TEST(GpuChoice, AMachineWithoutAGpuIsNamedByItsRank) {
  EXPECT_THAT(refusal({{0, kTwo}, {1, {}}}, 1), HasSubstr("no GPU can be used here"));
}

}  // namespace
}  // namespace lomu

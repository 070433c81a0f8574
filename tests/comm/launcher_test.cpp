// What the environment says about the launcher.
#include "comm/launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "kernels/error.h"

namespace lomu {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<int> ranks_in(const Variables& variables) {
  return launched_ranks([&](const char* name) -> const char* {
    const auto at = variables.find(name);
    return at == variables.end() ? nullptr : at->second.c_str();
  });
}

TEST(Launcher, AProcessStartedByItselfIsAlone) {
  EXPECT_EQ(ranks_in({}), std::nullopt);
  EXPECT_EQ(ranks_in({{"OMPI_COMM_WORLD_SIZE", ""}}), std::nullopt);
  EXPECT_EQ(ranks_in({{"OMPI_COMM_WORLD_SIZE", "many"}}), std::nullopt);
}

TEST(Launcher, AllocationShellsAreNotLaunchers) {
  EXPECT_EQ(ranks_in({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}, {"SLURM_JOB_ID", "1"}}), std::nullopt);
  EXPECT_EQ(ranks_in({{"SLURM_NTASKS", "8"}, {"SLURM_STEP_NUM_TASKS", "1"}}), std::nullopt);
}

TEST(Launcher, EachLauncherSaysItsSize) {
  EXPECT_EQ(ranks_in({{"OMPI_COMM_WORLD_SIZE", "4"}, {"PMIX_RANK", "3"}}), 4);
  EXPECT_EQ(ranks_in({{"PMI_SIZE", "2"}, {"PMI_RANK", "0"}}), 2);
  EXPECT_EQ(ranks_in({{"SLURM_STEP_NUM_TASKS", "6"}, {"SLURM_PROCID", "5"}}), 6);
  EXPECT_EQ(ranks_in({{"SLURM_STEP_NUM_TASKS", "1"}, {"PMIX_RANK", "0"}}), 1);
  EXPECT_EQ(ranks_in({{"PMIX_RANK", "0"}}), 0);
}

TEST(Launcher, AnotherMpisLauncherIsRefused) {
  EXPECT_NO_THROW(check_launch(4, 4, "Open MPI"));
  try {
    check_launch(4, 1, "Open MPI v4");
    FAIL();
  } catch (const CommError& error) {
    EXPECT_STREQ(error.what(), "the launcher started 4 ranks but MPI sees 1");
    EXPECT_EQ(error.where(), "Open MPI v4");
  }
}

}  // namespace
}  // namespace lomu

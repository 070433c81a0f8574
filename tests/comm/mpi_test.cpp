// MPI ranks as separate processes under mpirun: the same results as threads, and jobs that end when a rank does.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "tests/comm/processes.h"

namespace lomu {
namespace {

using processes::digest_in;
using processes::Outcome;
using processes::run;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Outcome mpirun(int ranks, const std::string& mode, const std::string& environment = {}) {
  // Root is the usual user of a container. What MPI itself leaks at its end is not ours.
  return run(
      fmt::format("env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
                  "OMP_NUM_THREADS=1 {} timeout 60 {} -np {} --oversubscribe {} {}",
                  environment, LOMU_MPIRUN, ranks, LOMU_RANK_PROBE, mode));
}

TEST(MpiRanks, GiveTheSameBitsForEveryWorldSize) {
  const Outcome alone = run(fmt::format("env ASAN_OPTIONS=detect_leaks=0 {} digest", LOMU_RANK_PROBE));
  ASSERT_THAT(alone.output, HasSubstr("backend self ranks 1"));
  for (const int ranks : {1, 2, 3, 4}) {
    const Outcome outcome = mpirun(ranks, "digest");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(fmt::format("backend mpi ranks {}", ranks)));
    EXPECT_EQ(digest_in(outcome.output), digest_in(alone.output));
  }
}

TEST(MpiRanks, OfOneHostShareOneCopyOfTheWeights) {
  for (const int ranks : {1, 2, 4}) {
    const Outcome outcome = mpirun(ranks, "region");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    long rss = 0, pss = 0;
    const std::size_t at = outcome.output.find("shared true");
    ASSERT_NE(at, std::string::npos) << outcome.output;
    ASSERT_EQ(std::sscanf(outcome.output.c_str() + at, "shared true rss_kb %ld pss_kb %ld", &rss, &pss), 2);
    EXPECT_EQ(rss, 16 * 1024);
    EXPECT_EQ(pss, 16 * 1024 / ranks);
  }
}

TEST(MpiFailure, ARankThatThrowsEndsAllWithOneMessageThatNamesIt) {
  for (const int ranks : {2, 3}) {
    const Outcome outcome = mpirun(ranks, "fail");
    EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
    EXPECT_LT(outcome.seconds, 10.0);
    EXPECT_THAT(outcome.output, HasSubstr(fmt::format("lomu: rank {} of {}, step 5: layer 3: the loss is not a number\n"
                                                      "  hint: lower the learning rate",
                                                      ranks - 1, ranks)));
    EXPECT_THAT(outcome.output, Not(HasSubstr("lomu: rank 0")));
  }
}

TEST(MpiFailure, AHangMeetsTheDeadlineAndNamesOperationAndStep) {
  const Outcome outcome = mpirun(2, "hang", "LOMU_COMM_DEADLINE_S=0.5");
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_LT(outcome.seconds, 10.0);
  EXPECT_THAT(outcome.output, HasSubstr("rank 0 of 2 waited 0.5 s in broadcast (configuration) at step 6"));
}

TEST(MpiFailure, AKilledRankEndsTheJob) {
  const Outcome outcome = mpirun(3, "kill");
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_LT(outcome.seconds, 10.0);
}

TEST(MpiFailure, AnExceptionThatPassesTheEnvironmentEndsTheJob) {
  const Outcome outcome = mpirun(2, "leave");
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_LT(outcome.seconds, 10.0);
  EXPECT_THAT(outcome.output, HasSubstr("lomu: rank 1 of 2: an error nobody handled ends this rank"));
}

TEST(MpiFailure, AnAgreedErrorIsReportedOnceAndKeepsItsExitCode) {
  const Outcome outcome = mpirun(3, "agree");
  EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
  EXPECT_LT(outcome.seconds, 10.0);
  const std::size_t first = outcome.output.find("unknown key");
  EXPECT_THAT(outcome.output, HasSubstr("lomu: job.yaml:3: rank 0: unknown key"));
  EXPECT_EQ(outcome.output.find("unknown key", first + 1), std::string::npos) << outcome.output;
}

TEST(MpiFailure, TheLauncherOfAnotherMpiIsRefused) {
  const Outcome outcome =
      run(fmt::format("env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
                      "SLURM_STEP_NUM_TASKS=4 timeout 60 {} digest",
                      LOMU_RANK_PROBE));
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("the launcher started 4 ranks but MPI sees 1"));
}

}  // namespace
}  // namespace lomu

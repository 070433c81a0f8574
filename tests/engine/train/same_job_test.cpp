#include "engine/train/same_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "comm/thread_communicator.h"

namespace lomu {
namespace {

using testing::HasSubstr;

/// What every rank is told; empty where a rank is content.
std::vector<std::string> verdicts(const std::vector<std::string>& programs,
                                  const std::vector<std::string>& configurations) {
  std::vector<std::string> said(programs.size());
  run_threads(static_cast<int>(programs.size()), [&](Communicator& comm) {
    const auto rank = static_cast<std::size_t>(comm.rank());
    try {
      check_same_job(programs[rank], configurations[rank], comm);
    } catch (const AgreedError& error) {
      said[rank] = error.what();
    }
    comm.barrier("afterwards the ranks can still talk");
  });
  return said;
}

TEST(SameJob, EqualRanksGoOn) {
  EXPECT_THAT(verdicts({"a", "a", "a"}, {"x: 1\n", "x: 1\n", "x: 1\n"}), testing::Each(""));
}

TEST(SameJob, AnotherBuildIsNamedOnEveryRank) {
  EXPECT_THAT(verdicts({"a", "a", "b"}, {"x", "x", "x"}), testing::Each(HasSubstr("rank 2 runs another build")));
}

TEST(SameJob, AnotherConfigurationIsShownByItsFirstLine) {
  const auto said = verdicts({"a", "a", "a"}, {"x: 1\ny: 2\nz: 3\n", "x: 1\ny: 5\nz: 4\n", "x: 1\ny: 2\nz: 3\n"});
  EXPECT_THAT(said, testing::Each(HasSubstr("rank 1 has another configuration than rank 0: \"y: 5\" where rank 0 has "
                                            "\"y: 2\"")));
}

TEST(SameJob, AShorterConfigurationDiffersWhereItEnds) {
  EXPECT_THAT(verdicts({"a", "a"}, {"x: 1\ny: 2\n", "x: 1\n"}),
              testing::Each(HasSubstr("nothing where rank 0 has \"y: 2\"")));
}

}  // namespace
}  // namespace lomu

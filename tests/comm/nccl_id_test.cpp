// What of NCCL works without a GPU: the library is there, is one that this build fits, and makes ids.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "comm/nccl/nccl_settings.h"
#include "comm/nccl/nccl_transport.h"

namespace lomu {
namespace {

TEST(NcclLibrary, TellsItsVersion) {
  if (!built_with_nccl()) GTEST_SKIP() << "this build has no NCCL";
  EXPECT_THAT(nccl_version(), ::testing::StartsWith("2."));
}

TEST(NcclLibrary, MakesIdsWithoutADevice) {
  if (!built_with_nccl()) GTEST_SKIP() << "this build has no NCCL";
  ::setenv("NCCL_SOCKET_IFNAME", "lo", 0);
  EXPECT_NO_THROW(check_nccl_ids());
}

TEST(NcclLibrary, IsMissedWithAHint) {
  if (built_with_nccl()) GTEST_SKIP() << "this build has NCCL";
  EXPECT_EQ(nccl_version(), "");
  const auto self = make_self_communicator();
  Memory memory;
  try {
    make_nccl_transport(*self, 0, memory);
    FAIL();
  } catch (const UnsupportedError& error) {
    EXPECT_THAT(error.hint(), ::testing::HasSubstr("LOMU_NCCL_ROOT"));
  }
}

TEST(NcclLibrary, ARankWithoutADeviceIsNamed) {
  if (!built_with_nccl()) GTEST_SKIP() << "this build has no NCCL";
  const auto self = make_self_communicator();
  Memory memory;
  try {
    make_nccl_transport(*self, 1000, memory);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("cudaSetDevice failed"));
  }
}

TEST(NcclSettings, ForSeveralRanksOnOneGpuNameAHostForEach) {
  EXPECT_THAT(nccl_settings_loopback(2),
              ::testing::Contains(std::pair<std::string, std::string>("NCCL_HOSTID", "lomu-2")));
}

TEST(NcclSettings, LeaveWhatTheUserHasSet) {
  ::setenv("LOMU_TEST_SETTING", "mine", 1);
  ::unsetenv("LOMU_TEST_SETTING_2");
  apply_settings({{"LOMU_TEST_SETTING", "other"}, {"LOMU_TEST_SETTING_2", "new"}});
  EXPECT_STREQ(std::getenv("LOMU_TEST_SETTING"), "mine");
  EXPECT_STREQ(std::getenv("LOMU_TEST_SETTING_2"), "new");
}

}  // namespace
}  // namespace lomu

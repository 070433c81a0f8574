// What a machine, a container and a batch job say about memory, from made-up trees of /proc and /sys.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <string>

#include "kernels/host_room.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMiB = std::size_t{1} << 20;

class HostRoom : public testing::Test {
 protected:
  HostRoom() {
    std::string pattern = (fs::temp_directory_path() / "lomu_room_XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    write("proc/meminfo", "MemTotal:        8192 kB\nMemFree:          100 kB\nMemAvailable:    6144 kB\n");
  }
  ~HostRoom() override { fs::remove_all(root_); }

  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  void expect(std::size_t total, std::size_t free) const {
    const StorageRoom room = host_room(root_);
    EXPECT_EQ(room.total, total);
    EXPECT_EQ(room.free, free);
  }

 private:
  fs::path root_;
};

TEST_F(HostRoom, IsTheMachinesWithoutGroups) {
  expect(8 * kMiB, 6 * kMiB);
}

TEST_F(HostRoom, IsTheContainersWhereThatIsLess) {
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", "4194304\n");
  write("sys/fs/cgroup/memory.current", "3145728\n");
  write("sys/fs/cgroup/memory.stat", "anon 1048576\ninactive_file 2097152\n");
  expect(4 * kMiB, 3 * kMiB);
}

TEST_F(HostRoom, LooksAtEveryGroupAroundTheProcess) {
  write("proc/self/cgroup", "0::/slurm/job_7/step_0\n");
  write("sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n");
  write("sys/fs/cgroup/slurm/job_7/memory.max", "2097152\n");
  write("sys/fs/cgroup/slurm/job_7/memory.current", "1048576\n");
  expect(2 * kMiB, kMiB);
}

TEST_F(HostRoom, ReadsTheFirstVersionOfGroups) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/\n3:memory:/docker/abc\n");
  write("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "5242880\n");
  write("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "3145728\n");
  write("sys/fs/cgroup/memory/docker/abc/memory.stat", "inactive_file 1\ntotal_inactive_file 1048576\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  expect(5 * kMiB, 3 * kMiB);
}

TEST_F(HostRoom, NeverFallsBelowNothing) {
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", "1048576\n");
  write("sys/fs/cgroup/memory.current", "2097152\n");
  expect(kMiB, 0);
}

TEST(HostRoomHere, IsKnownAndTheStoragesAnswer) {
  const StorageRoom room = host_storage().room();
  EXPECT_GT(room.total, 64 * kMiB);
  EXPECT_GT(room.free, 0U);
  EXPECT_LE(room.free, room.total);
}

}  // namespace
}  // namespace lomu

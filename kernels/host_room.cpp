#include "kernels/host_room.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

namespace lomu {
namespace {

namespace fs = std::filesystem;

/// The names of one version of control groups.
struct GroupFiles {
  const char* mount;
  const char* limit;
  const char* usage;
  const char* cached;  ///< a line of memory.stat: file pages that are given back on demand
};
constexpr GroupFiles kVersion1{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                               "total_inactive_file"};
constexpr GroupFiles kVersion2{"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};

/// The first number of the line of `file` that starts with `key`, or of its first line without one.
std::optional<std::size_t> number_in(const fs::path& file, std::string_view key = {}) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::string name;
    if (!key.empty() && (!(words >> name) || name != key)) continue;
    std::size_t value = 0;
    if (words >> value) return value;
    return {};
  }
  return {};
}

StorageRoom machine_room(const fs::path& root) {
  const fs::path meminfo = root / "proc/meminfo";
  const auto kib = [&](std::string_view key) { return number_in(meminfo, key).value_or(0) * 1024; };
  return {kib("MemTotal:"), kib("MemAvailable:")};
}

/// Narrows `room` to what one group allows. A group without a limit says "max", or a number beyond any memory.
void narrow(StorageRoom& room, const fs::path& group, const GroupFiles& files) {
  const auto limit = number_in(group / files.limit);
  if (!limit || *limit >= room.total) return;
  const std::size_t used = number_in(group / files.usage).value_or(0);
  const std::size_t cached = std::min(used, number_in(group / "memory.stat", files.cached).value_or(0));
  const std::size_t held = used - cached;
  room.total = *limit;
  room.free = std::min(room.free, *limit > held ? *limit - held : 0);
}

/// The group at `path`, as the process sees it, and all those around it.
void narrow_by_groups(StorageRoom& room, const fs::path& root, const fs::path& path, const GroupFiles& files) {
  const fs::path mount = root / files.mount;
  for (fs::path group = path.relative_path(); !group.empty(); group = group.parent_path()) {
    narrow(room, mount / group, files);
  }
  narrow(room, mount, files);
}

}  // namespace

StorageRoom host_room(const fs::path& root) {
  StorageRoom room = machine_room(root);
  std::ifstream groups(root / "proc/self/cgroup");
  // Lines of "number:controllers:path"; version 2 has the number 0 and no controllers.
  for (std::string line; std::getline(groups, line);) {
    std::istringstream fields(line);
    std::string number, controllers, path;
    if (!std::getline(fields, number, ':') || !std::getline(fields, controllers, ':') || !std::getline(fields, path)) {
      continue;
    }
    if (controllers.empty()) narrow_by_groups(room, root, path, kVersion2);
    // No other controller's name contains this one's.
    if (controllers.find("memory") != std::string::npos) narrow_by_groups(room, root, path, kVersion1);
  }
  return room;
}

}  // namespace lomu

// How much memory this machine has and could still give, as the kernel and the container or job around this process
// say. Not what the process uses, and no allocation.
#pragma once

#include <filesystem>

#include "kernels/storage.h"

namespace lomu {

/// The smaller of what the machine has and what the control groups (version 1 or 2) of this process allow; memory that
/// holds cached files counts as free. `root` stands for the root of the file system.
StorageRoom host_room(const std::filesystem::path& root = "/");

}  // namespace lomu

// How many cores a process may use: what its affinity mask and its container allow, which is not what the machine has.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace lomu {

/// The cores this process may run on, by number, ascending. Never empty.
std::vector<int> allowed_cores();

/// Cores' worth of time that a cgroup quota grants, from the text of cgroup 2's `cpu.max` ("150000 100000" is 1.5);
/// nothing without a limit ("max 100000") or for another text.
std::optional<double> parse_cpu_quota(std::string_view cpu_max);

/// The same of this process's container; nothing without a limit.
std::optional<double> container_quota();

}  // namespace lomu

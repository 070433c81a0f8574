#include "engine/session/cores.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <thread>

namespace lomu {

std::vector<int> allowed_cores() {
  std::vector<int> cores;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &mask)) cores.push_back(core);
    }
  }
  if (!cores.empty()) return cores;
  // A machine with more processors than the mask has bits.
  const int count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (int core = 0; core < count; ++core) cores.push_back(core);
  return cores;
}

std::optional<double> parse_cpu_quota(std::string_view cpu_max) {
  const char* const end = cpu_max.data() + cpu_max.size();
  double quota = 0;
  const auto [after_quota, error] = std::from_chars(cpu_max.data(), end, quota);
  if (error != std::errc() || after_quota == end || *after_quota != ' ') return {};
  double period = 0;
  if (std::from_chars(after_quota + 1, end, period).ec != std::errc()) return {};
  if (quota <= 0 || period <= 0) return {};
  return quota / period;
}

std::optional<double> container_quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string line;
  if (!std::getline(file, line)) return {};
  return parse_cpu_quota(line);
}

}  // namespace lomu

#include "comm/nccl/nccl_settings.h"

#include <fmt/format.h>

#include <cstdlib>

namespace lomu {

EnvironmentSettings nccl_settings_deterministic() {
  return {{"NCCL_NVLS_ENABLE", "0"}};
}

EnvironmentSettings nccl_settings_loopback(int rank) {
  return {
      {"NCCL_HOSTID", fmt::format("lomu-{}", rank)},
      {"NCCL_NET", "Socket"},
      {"NCCL_SOCKET_IFNAME", "lo"},
      {"NCCL_IB_DISABLE", "1"},
      {"NCCL_ALGO", "Ring"},
      {"NCCL_PROTO", "Simple"},
      {"NCCL_NVLS_ENABLE", "0"},
      {"NCCL_MNNVL_ENABLE", "0"},
      {"NCCL_MAX_NCHANNELS", "2"},
  };
}

void apply_settings(const EnvironmentSettings& settings) {
  for (const auto& [name, value] : settings) ::setenv(name.c_str(), value.c_str(), 0);
}

}  // namespace lomu

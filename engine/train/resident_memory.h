// What this process holds in memory, as the kernel counts it.
#pragma once

#include <cstdint>

namespace lomu {

/// Most bytes that were ever resident (VmHWM), shared mappings included; 0 where /proc does not say.
std::uint64_t peak_resident_bytes();

}  // namespace lomu

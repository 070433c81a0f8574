// Which devices a list of compiled architectures serves. Words only: it asks no device and no toolkit.
#pragma once

#include <string_view>

namespace lomu::cuda {

/// Whether kernels compiled for `architectures` run on a device of compute capability `major`.`minor`. The list is
/// CMake's: numbers apart by commas, each with code and PTX unless "-real" or "-virtual" follows. Code runs on its
/// own major version from its minor on, PTX on every newer device; "90a" is code for 9.0 alone, "100f" for the family.
/// True for "native", "all" and "all-major", which say too little to deny it; false for words that are none of these.
bool runs_on(std::string_view architectures, int major, int minor);

}  // namespace lomu::cuda

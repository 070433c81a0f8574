// Small kernels, each with one seeded defect, to test the emulator: what it must notice, alone or with a sanitizer.
#pragma once

#include <span>

namespace lomu {

struct Defect {
  const char* name;
  /// Runs the kernel. Throws emu::LaunchFailure if the emulator noticed, WrongResult if the output shows it; returns if
  /// nothing was noticed, or ends the process where a sanitizer or the hardware does.
  void (*run)();
};

class WrongResult {};

/// All of them. The first ones, up to "none", are correct kernels, which nothing may complain about.
std::span<const Defect> emulator_defects();

/// Runs the one of that name; throws std::out_of_range if there is none.
void run_defect(const char* name);

}  // namespace lomu

// Runs one of the defects: `emulator_probe NAME [SEED]`. Built with a sanitizer each, to see what the sanitizer makes
// of it. Prints what was noticed; "nothing was noticed" otherwise.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "kernels/cuda/emulation/schedule.h"
#include "tests/kernels/cuda/emulator_defects.h"

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  try {
    const lomu::emu::ScheduleScope scope(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 0);
    lomu::run_defect(argv[1]);
  } catch (const lomu::WrongResult&) {
    std::puts("wrong result");
    return 1;
  } catch (const std::exception& e) {
    std::printf("failed: %s\n", e.what());
    return 1;
  }
  std::puts("nothing was noticed");
  return 0;
}

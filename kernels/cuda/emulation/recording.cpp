#include "kernels/cuda/emulation/recording.h"

namespace lomu::emu {

Recorded*& recording() {
  static thread_local Recorded* recorded = nullptr;
  return recorded;
}

}  // namespace lomu::emu

// A stack that can be entered and left: the least that an emulated thread needs. Tells the sanitizers about every
// change of stack. Knows nothing of CUDA.
#pragma once

#include <cstddef>

namespace lomu::emu {

/// Zero-initialised storage is a valid fiber without a stack: thousands of them cost nothing until they are used.
class Fiber {
 public:
  using Entry = void (*)();

  /// Makes the fiber ready to start at `entry`, which must never return. A fiber that was left in the middle is
  /// rebuilt; one that called park() goes on from there. Throws std::bad_alloc if there is no memory for the stack.
  void prepare(Entry entry);

  /// From the launcher: runs the fiber until it leaves.
  void enter();

  /// From inside: back to the launcher. Returns when the fiber is entered again.
  void leave();

  /// From inside: as leave(), at a place from which the fiber can serve again.
  void park();

  /// From the launcher: gives up a fiber that was left in the middle. What it did comes before order_acquire(order).
  void abandon(void* order);

  /// Whether `address` lies in the inaccessible page below the stack, where an overflow strikes first.
  [[nodiscard]] bool overflowed_at(const void* address) const;

  /// To be called by the thread that will enter fibers, before it does.
  static void bind_launcher();

 private:
  char* stack_;  // lowest usable byte
  void* saved_;  // the stack pointer, or what else the processor's switch needs
  void* tsan_;
  void* asan_fake_;
  bool parked_;
  Entry entry_;

  static void first_steps();
};

/// Changes of stack into a fiber so far.
long fiber_switches();

}  // namespace lomu::emu

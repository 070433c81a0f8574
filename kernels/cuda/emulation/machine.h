// The emulated processor's state: one block at a time, its threads, barriers and shared memory. Only for the emulator's
// own files. There is one machine in a process, as the language has one threadIdx.
//
// ThreadSanitizer sees happens-before only where CUDA promises it. The addresses that stand for those promises lie in
// the block's own memory (Orders): at fixed addresses they would order the blocks after one another.
#pragma once

#include <cstddef>

#include "kernels/cuda/emulation/fiber.h"
#include "kernels/cuda/emulation/runtime.h"

namespace lomu::emu {

inline constexpr int kWarp = 32;
inline constexpr int kMaxThreads = 1024;
inline constexpr int kBarriers = 16;
inline constexpr int kMaxPieces = 32;
inline constexpr std::size_t kRedzone = 128;           // between two pieces of shared memory
inline constexpr std::size_t kMaxShared = 227 * 1024;  // a block's on sm_90 and sm_100
inline constexpr std::size_t kMaxFailureText = 4000;

enum class State { kEnded, kReady, kWaiting };

struct Thread {
  Fiber fiber;
  State state;
  int number;  // in the block
  uint3 index;

  // What it waits at.
  const char* what;
  Place place;
  int barrier;    // -1: a warp collective
  unsigned mask;  // of the collective; the barrier's number otherwise
  void* arguments;
  Resolve resolve;
  char* order;

  AsyncCopies copies;
};

struct Barrier {
  int arrived, expected, first, generation;
  Place place;
};

/// Addresses for ThreadSanitizer. A barrier has two, used in turn: with one, a fast thread's next arrival would order a
/// slow one. A warp's collectives take theirs from a ring.
struct alignas(128) Orders {
  static constexpr unsigned kRing = 64;
  char barrier[kBarriers][2];
  char warp[kMaxThreads / kWarp][kRing];
};

struct Machine {
  // Under ThreadSanitizer neighbouring blocks use different fibers: one fiber's program order would hide their races.
  Thread pools[2][kMaxThreads];
  Thread* threads;  // of the running block
  Thread* running;
  int count, ended;
  Barrier barriers[kBarriers];

  char* arena;
  Orders* orders;
  std::size_t shared_limit;
  unsigned next_warp_order;

  char order_start, order_end, order_fence;
  void (*body)(void*);
  void* closure;
  char failure[kMaxFailureText];  // empty if there is none
  unsigned seed;
};
extern Machine machine;

bool same_line(Place a, Place b);
int lanes_of_warp(int warp);

/// A fiber's whole life: run the kernel for the thread it is given, park, again.
void thread_life();

/// If every live lane of the collective that `thread` waits at is there, resolves it and lets them go on.
bool complete_collective(Thread& thread);

/// Names every group of waiting threads in machine.failure.
void report_deadlock();

}  // namespace lomu::emu

// What the emulated CUDA language asks of the emulator: run a grid, meet at a barrier, fail. Declarations only: this
// header is also compiled into the emulator itself, which has no sanitizer, and an inline function in it could reach
// the kernels in its uninstrumented form through the linker.
#pragma once

#include <cstddef>

#include "kernels/cuda/emulation/types.h"
#include "kernels/error.h"

/// The running thread's. Constant to a kernel; the calls below change them, which is why compilers read them anew.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace lomu::emu {

/// A source line; as a default argument it is the caller's.
struct Place {
  const char* file;
  int line;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

/// A launch failed: what() has file:line, the fault, the thread and the block. The emulator stays usable.
class LaunchFailure : public Error {
 public:
  using Error::Error;
};

/// Runs thread_body(closure) for each thread of each block, one block after another; calls from several threads of the
/// process wait for each other. Throws LaunchFailure, also for sizes that no device accepts.
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, void (*thread_body)(void*), void* closure);

/// Called in a kernel's thread: abandons the launch with this message (at most about 1000 characters).
[[noreturn, gnu::format(printf, 2, 3)]] void fail(Place, const char* format, ...);

/// `threads` threads of the block meet at barrier `id` of 0 to 15. one_place: all must come from the same source line.
void barrier(int id, int threads, bool one_place, Place);

/// Computes the results of a warp collective from all lanes' arguments; those of lanes not in `active` are null.
using Resolve = void (*)(void* const* lanes, unsigned active, Place);

/// All live lanes of `mask` meet; the last one to come calls `resolve`, if any, and then all go on.
/// orders: whether CUDA promises memory order among the lanes. Only __syncwarp does.
void warp_collective(const char* what, unsigned mask, void* arguments, Resolve resolve, bool orders, Place);

/// The order that __threadfence gives: everything before it in this thread comes before what follows a later fence.
void memory_fence();

/// Number of the running thread in its warp.
int lane();

/// The block's shared memory at `offset`, for its piece number `piece`; fails beyond what the launch asked for.
void* shared_piece(std::size_t offset, std::size_t bytes, int piece, Place);

/// The running thread's cp.async copies that have not landed. They land at the wait: as late as the hardware may.
struct AsyncCopies {
  static constexpr int kMax = 256;
  struct Copy {
    void* to;
    const void* from;  // null: zeros
    int group;
    Place place;
  };
  Copy copy[kMax];
  int count;
  int group;  // the one not yet committed
};
AsyncCopies& async_copies();

}  // namespace lomu::emu

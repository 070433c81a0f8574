// Runs the tests of device kernels on a device, unchanged. They hand the memory of std::vector to kernels, as emulation
// allows; here everything that is allocated once the tests run comes from memory that host and device share, and every
// launch is waited for. So the bodies that found a kernel right in emulation say whether it is right on a GPU.
//
// A test must not hand a kernel the address of a local variable: that is memory of the host alone.
//
// Not for what emulation alone can show: schedules (one here), and reads and writes beyond an allocation (the arena's
// neighbours hide them; compute-sanitizer on `lomu verify` sees those of real buffers).
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

#include "kernels/cuda/emulation/schedule.h"

namespace {

/// Blocks of powers of two, cut from one piece of shared memory, given back to lists by size and never joined: tests
/// need a few megabytes at a time.
class Arena {
 public:
  bool open(std::size_t bytes) {
    void* memory = nullptr;
    if (cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal) != cudaSuccess) return false;
    begin_ = next_ = static_cast<std::byte*>(memory);
    end_ = begin_ + bytes;
    return true;
  }
  [[nodiscard]] bool is_open() const { return begin_ != nullptr; }
  [[nodiscard]] bool holds(const void* block) const { return block >= begin_ && block < end_; }

  /// Null when it is full. Aligned to 256.
  void* take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const std::size_t order = order_of(bytes);
    if (Free* block = free_[order]; block != nullptr) {
      free_[order] = block->next;
      return block;
    }
    const std::size_t whole = kHeader + (std::size_t{1} << order);
    if (static_cast<std::size_t>(end_ - next_) < whole) return nullptr;
    std::byte* block = next_ + kHeader;
    *reinterpret_cast<std::size_t*>(next_) = order;
    next_ += whole;
    return block;
  }
  void give(void* block) {
    const std::lock_guard lock(mutex_);
    const std::size_t order = *reinterpret_cast<std::size_t*>(static_cast<std::byte*>(block) - kHeader);
    free_[order] = new (block) Free{free_[order]};
  }

 private:
  struct Free {
    Free* next;
  };
  static constexpr std::size_t kHeader = 256;  // keeps blocks as aligned as cudaMalloc's
  static std::size_t order_of(std::size_t bytes) {
    return static_cast<std::size_t>(std::bit_width(bytes < 256 ? std::size_t{255} : bytes - 1));
  }

  std::mutex mutex_;
  std::byte* begin_ = nullptr;
  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
  std::array<Free*, 64> free_{};
};

/// Never destroyed: what the program gives back at its very end still finds it.
Arena& arena() {
  alignas(Arena) static std::byte place[sizeof(Arena)];
  static Arena* const instance = new (place) Arena;
  return *instance;
}

void* allocate(std::size_t bytes) {
  void* block = arena().is_open() ? arena().take(bytes) : std::malloc(bytes == 0 ? 1 : bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

void release(void* block) noexcept {
  if (arena().holds(block)) {
    arena().give(block);
  } else {
    std::free(block);
  }
}

constexpr std::size_t kArenaBytes = std::size_t{1} << 30;
constexpr int kNoDevice = 77;  // as test drivers take "skipped"

}  // namespace

void* operator new(std::size_t bytes) {
  return allocate(bytes);
}
void* operator new[](std::size_t bytes) {
  return allocate(bytes);
}
// Blocks of the arena are aligned to 256; what is allocated before it opens is seldom over-aligned, and never passed
// on.
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  if (arena().is_open() && static_cast<std::size_t>(alignment) <= 256) return allocate(bytes);
  void* block = std::aligned_alloc(static_cast<std::size_t>(alignment), bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return operator new(bytes, alignment);
}
void operator delete(void* block, std::align_val_t) noexcept {
  release(block);
}
void operator delete[](void* block, std::align_val_t) noexcept {
  release(block);
}
void operator delete(void* block) noexcept {
  release(block);
}
void operator delete[](void* block) noexcept {
  release(block);
}
void operator delete(void* block, std::size_t) noexcept {
  release(block);
}
void operator delete[](void* block, std::size_t) noexcept {
  release(block);
}

// A device has the one schedule that it has.
namespace lomu::emu {
ScheduleScope::ScheduleScope(unsigned seed) : before_(seed) {}
ScheduleScope::~ScheduleScope() = default;
unsigned schedules_to_try() {
  return 2;  // two runs, which must give the same bits
}
long switch_count() {
  return 0;
}
}  // namespace lomu::emu

int main(int argc, char** argv) {
  setenv("CUDA_LAUNCH_BLOCKING", "1", 1);  // read when CUDA starts, which is at the first call
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fputs("there is no GPU\n", stderr);
    return kNoDevice;
  }
  testing::InitGoogleTest(&argc, argv);
  if (!arena().open(kArenaBytes)) {
    std::fputs("the GPU has no memory to share\n", stderr);
    return kNoDevice;
  }
  return RUN_ALL_TESTS();
}

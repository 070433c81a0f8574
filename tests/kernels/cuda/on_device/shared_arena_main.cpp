// Runs the tests of device kernels on a device, unchanged. They hand the memory of std::vector to kernels, as emulation
// allows; here everything that is allocated once the tests run comes from memory that host and device share, and every
// launch is waited for. So the bodies that found a kernel right in emulation say whether it is right on a GPU.
//
// A test must not hand a kernel the address of a local variable: that is memory of the host alone.
//
// LOMU_SEPARATE_BLOCKS=1 takes every block from the driver by itself, so that compute-sanitizer's memcheck knows where
// it ends; otherwise the arena's neighbours hide what is read or written beyond a block. Schedules can be tried in
// emulation alone; here a test of them runs as often as LOMU_EMULATION_SCHEDULES says, by itself twice, which must give
// equal bits.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string_view>

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

/// Whether blocks come from the driver one by one.
bool separate = false;

/// Null when there is no more. Aligned to 256.
void* shared_block(std::size_t bytes) {
  if (!separate) return arena().take(bytes);
  void* block = nullptr;
  return cudaMallocManaged(&block, bytes == 0 ? 1 : bytes, cudaMemAttachGlobal) == cudaSuccess ? block : nullptr;
}

bool shares() {
  return separate || arena().is_open();
}

void* allocate(std::size_t bytes) {
  void* block = shares() ? shared_block(bytes) : std::malloc(bytes == 0 ? 1 : bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

void release(void* block) noexcept {
  if (separate) {
    cudaPointerAttributes found{};
    // At the very end of the program nothing can be asked or given back any more.
    if (block == nullptr || cudaPointerGetAttributes(&found, block) != cudaSuccess) return;
    if (found.type == cudaMemoryTypeManaged) {
      cudaFree(block);
      return;
    }
  }
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
// Shared blocks are aligned to 256; what is allocated before there are any is seldom over-aligned, and never passed
// on.
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  if (shares() && static_cast<std::size_t>(alignment) <= 256) return allocate(bytes);
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
  const char* asked = std::getenv("LOMU_EMULATION_SCHEDULES");
  return asked == nullptr ? 2 : static_cast<unsigned>(std::max(1, std::atoi(asked)));
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
  const char* asked = std::getenv("LOMU_SEPARATE_BLOCKS");
  separate = asked != nullptr && std::string_view(asked) == "1";
  if (!separate && !arena().open(kArenaBytes)) {
    std::fputs("the GPU has no memory to share\n", stderr);
    return kNoDevice;
  }
  return RUN_ALL_TESTS();
}

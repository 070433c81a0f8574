// The sanitizers' interface for programs that switch stacks, as weak symbols: null unless the program is linked with
// that sanitizer, so that one object of the emulator serves all builds.
#pragma once

#include <sanitizer/asan_interface.h>
#include <sanitizer/tsan_interface.h>

extern "C" {
[[gnu::weak]] decltype(__asan_poison_memory_region) __asan_poison_memory_region;
[[gnu::weak]] decltype(__asan_unpoison_memory_region) __asan_unpoison_memory_region;
[[gnu::weak]] decltype(__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber;
[[gnu::weak]] decltype(__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber;
[[gnu::weak]] decltype(__tsan_acquire) __tsan_acquire;
[[gnu::weak]] decltype(__tsan_release) __tsan_release;
[[gnu::weak]] decltype(__tsan_get_current_fiber) __tsan_get_current_fiber;
[[gnu::weak]] decltype(__tsan_create_fiber) __tsan_create_fiber;
[[gnu::weak]] decltype(__tsan_destroy_fiber) __tsan_destroy_fiber;
[[gnu::weak]] decltype(__tsan_switch_to_fiber) __tsan_switch_to_fiber;
}

namespace lomu::emu {

inline bool with_asan() {
  return __asan_poison_memory_region != nullptr;
}
inline bool with_tsan() {
  return __tsan_get_current_fiber != nullptr;
}

/// What happened before order_release(p) comes before what happens after a later order_acquire(p).
inline void order_release(void* p) {
  if (__tsan_release != nullptr) __tsan_release(p);
}
inline void order_acquire(void* p) {
  if (__tsan_acquire != nullptr) __tsan_acquire(p);
}

/// Whether the program may touch these bytes.
inline void forbid(void* p, size_t bytes) {
  if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(p, bytes);
}
inline void allow(void* p, size_t bytes) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(p, bytes);
}

}  // namespace lomu::emu

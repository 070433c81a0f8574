#include "kernels/cuda/emulation/fiber.h"

#include <sys/mman.h>

#include <new>

#include "kernels/cuda/emulation/sanitizers.h"

#if !defined(__x86_64__) || defined(LOMU_EMU_UCONTEXT)
#include <ucontext.h>
#endif

namespace lomu::emu {
namespace {

constexpr std::size_t kGuard = 64 * 1024;   // a multiple of the page size on every processor we know
constexpr std::size_t kStack = 128 * 1024;  // kernels were seen to use under 4 KB, 9 KB with AddressSanitizer

struct Launcher {
  void* saved;
  void* tsan;
  void* asan_fake;
  const void* stack;
  std::size_t stack_bytes;
};
Launcher launcher;
Fiber* entered;
long switches;

#if defined(__x86_64__) && !defined(LOMU_EMU_UCONTEXT)

// Fifteen instructions instead of swapcontext's two system calls: 26 ns instead of 340. Saves what the calling
// convention makes the callee keep in *save (rdi), goes to the stack `load` (rsi), and restores.
[[gnu::naked, gnu::noinline]] void switch_stack(void** /*save*/, void* /*load*/) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n"
      "movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
      "ret");
}
void* fresh_stack(void* /*before*/, char* stack, void (*start)()) {
  void** top = reinterpret_cast<void**>(stack + kStack);
  *--top = nullptr;  // aligns the stack as after a call, and ends unwinding
  *--top = reinterpret_cast<void*>(start);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  return top;
}

#else

// `saved` is a ucontext_t that lives as long as the process.
void switch_stack(void** save, void* load) {
  if (*save == nullptr) *save = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(*save), static_cast<ucontext_t*>(load));
}
void* fresh_stack(void* before, char* stack, void (*start)()) {
  auto* context = before != nullptr ? static_cast<ucontext_t*>(before) : new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = kStack;
  context->uc_link = nullptr;
  makecontext(context, start, 0);
  return context;
}

#endif

// Without a synchronisation: only what CUDA orders may look ordered.
void tsan_switch(void* to) {
  if (__tsan_switch_to_fiber != nullptr) __tsan_switch_to_fiber(to, __tsan_switch_to_fiber_no_sync);
}
void asan_start(void** fake, const void* stack, std::size_t bytes) {
  if (__sanitizer_start_switch_fiber != nullptr) __sanitizer_start_switch_fiber(fake, stack, bytes);
}
void asan_finish(void* fake, const void** stack, std::size_t* bytes) {
  if (__sanitizer_finish_switch_fiber != nullptr) __sanitizer_finish_switch_fiber(fake, stack, bytes);
}

}  // namespace

void Fiber::first_steps() {
  asan_finish(nullptr, &launcher.stack, &launcher.stack_bytes);
  entered->entry_();
}

void Fiber::prepare(Entry entry) {
  if (stack_ == nullptr) {
    void* memory =
        mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    if (mprotect(memory, kGuard, PROT_NONE) != 0) {
      munmap(memory, kGuard + kStack);
      throw std::bad_alloc();
    }
    stack_ = static_cast<char*>(memory) + kGuard;
  }
  if (!parked_) {
    allow(stack_, kStack);
    if (__tsan_create_fiber != nullptr && tsan_ == nullptr) tsan_ = __tsan_create_fiber(0);
    saved_ = fresh_stack(saved_, stack_, &Fiber::first_steps);
    asan_fake_ = nullptr;
    entry_ = entry;
  }
  parked_ = false;
}

void Fiber::enter() {
  entered = this;
  ++switches;
  asan_start(&launcher.asan_fake, stack_, kStack);
  tsan_switch(tsan_);
  switch_stack(&launcher.saved, saved_);
  asan_finish(launcher.asan_fake, nullptr, nullptr);
}

void Fiber::leave() {
  asan_start(&asan_fake_, launcher.stack, launcher.stack_bytes);
  tsan_switch(launcher.tsan);
  switch_stack(&saved_, launcher.saved);
  asan_finish(asan_fake_, &launcher.stack, &launcher.stack_bytes);
}

void Fiber::park() {
  parked_ = true;
  leave();
}

void Fiber::abandon(void* order) {
  if (parked_ || tsan_ == nullptr) return;
  tsan_switch(tsan_);
  order_release(order);
  tsan_switch(launcher.tsan);
  __tsan_destroy_fiber(tsan_);
  tsan_ = nullptr;
}

bool Fiber::overflowed_at(const void* address) const {
  const char* p = static_cast<const char*>(address);
  return stack_ != nullptr && p >= stack_ - kGuard && p < stack_;
}

void Fiber::bind_launcher() {
  if (with_tsan()) launcher.tsan = __tsan_get_current_fiber();
}

long fiber_switches() {
  return switches;
}

}  // namespace lomu::emu

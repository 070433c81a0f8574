// Launches: blocks one after another, the threads of a block by turns in the order that the seed says.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/emulation/machine.h"
#include "kernels/cuda/emulation/sanitizers.h"
#include "kernels/cuda/emulation/schedule.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace lomu::emu {

Machine machine;

namespace {

std::mutex one_launch;

// Our own generator and shuffle, so that a seed is the same schedule with every standard library (SplitMix64).
class Random {
 public:
  explicit Random(unsigned seed) : state_(seed) {}
  void shuffle(std::vector<int>& order) {
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[next() % i]);
  }

 private:
  unsigned long next() {
    state_ += 0x9e3779b97f4a7c15u;
    unsigned long z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  unsigned long state_;
};

void run_block(Random& random) {
  Machine& m = machine;
  std::vector<int> order(static_cast<std::size_t>(m.count));
  for (int t = 0; t < m.count; ++t) order[static_cast<std::size_t>(t)] = m.seed == 1 ? m.count - 1 - t : t;
  const bool priorities = m.seed > 1 && m.seed % 2 == 1;
  if (priorities) random.shuffle(order);
  m.ended = 0;
  while (m.ended < m.count && *m.failure == 0) {
    if (m.seed > 1 && !priorities) random.shuffle(order);
    bool progress = false;
    for (const int t : order) {
      Thread& thread = m.threads[t];
      if (thread.state != State::kReady) continue;
      m.running = &thread;
      threadIdx = thread.index;
      thread.fiber.enter();
      progress = true;
      if (*m.failure != 0 || priorities) break;  // priorities: look again from the top
    }
    if (!progress) report_deadlock();
  }
}

void prepare_thread(Thread& thread, int number) {
  const unsigned n = static_cast<unsigned>(number);
  thread.fiber.prepare(thread_life);
  thread.state = State::kReady;
  thread.number = number;
  thread.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / (blockDim.x * blockDim.y)};
  thread.barrier = -1;
  thread.copies.count = 0;
  thread.copies.group = 0;
}

// The shared memory of one block, with the addresses of its orders behind it.
class Arena {
 public:
  explicit Arena(std::size_t shared_bytes)
      : bytes_((shared_bytes + (kMaxPieces + 2) * kRedzone + 127) / 128 * 128),
        memory_(static_cast<char*>(std::aligned_alloc(128, bytes_ + sizeof(Orders)))) {
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  ~Arena() {
    allow(memory_, bytes_);
    std::free(memory_);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void give_to_block() {
    allow(memory_, bytes_);
    std::memset(memory_, 0xff, bytes_);  // NaN in every float type, -1 in integers
    forbid(memory_, bytes_);
    machine.arena = memory_;
    machine.orders = reinterpret_cast<Orders*>(memory_ + bytes_);
  }

 private:
  std::size_t bytes_;
  char* memory_;
};

// Names a stack overflow before the process dies of it. Left to the sanitizers where they are; they know more.
void on_segv(int signal, siginfo_t* info, void* /*context*/) {
  if (machine.running != nullptr && machine.running->fiber.overflowed_at(info->si_addr)) {
    char text[200];
    const int n = std::snprintf(text, sizeof text, "emulation: stack overflow in thread %d of block %u,%u,%u\n",
                                machine.running->number, blockIdx.x, blockIdx.y, blockIdx.z);
    if (write(STDERR_FILENO, text, static_cast<std::size_t>(n)) < 0) _exit(1);
  }
  ::signal(signal, SIG_DFL);  // the access repeats and ends the process
}
class OverflowWatch {
 public:
  OverflowWatch() {
    if (with_asan() || with_tsan()) return;
    watching_ = true;
    stack_t own{};
    own.ss_sp = stack_;
    own.ss_size = sizeof stack_;
    sigaltstack(&own, &stack_before_);
    struct sigaction action {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before_);
  }
  ~OverflowWatch() {
    if (!watching_) return;
    sigaction(SIGSEGV, &before_, nullptr);
    sigaltstack(&stack_before_, nullptr);
  }
  OverflowWatch(const OverflowWatch&) = delete;
  OverflowWatch& operator=(const OverflowWatch&) = delete;

 private:
  bool watching_ = false;
  stack_t stack_before_{};
  struct sigaction before_ {};
  alignas(16) char stack_[16 * 1024];
};

void check_sizes(dim3 grid, dim3 block, std::size_t shared_bytes) {
  const auto text = [](dim3 d) { return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z); };
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads < 1 || block.x > kMaxThreads || block.y > kMaxThreads || threads > kMaxThreads || block.z > 64) {
    throw LaunchFailure("launch: a block of " + text(block) + " threads is out of range");
  }
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    throw LaunchFailure("launch: a grid of " + text(grid) + " blocks is out of range");
  }
  if (shared_bytes > kMaxShared) {
    throw LaunchFailure("launch: " + std::to_string(shared_bytes) + " bytes of shared memory; a block has at most " +
                        std::to_string(kMaxShared));
  }
}

}  // namespace

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, void (*thread_body)(void*), void* closure) {
  check_sizes(grid, block, shared_bytes);
  const std::lock_guard lock(one_launch);
  const OverflowWatch watch;
  Machine& m = machine;
  gridDim = grid;
  blockDim = block;
  m.count = static_cast<int>(block.x * block.y * block.z);
  m.body = thread_body;
  m.closure = closure;
  m.shared_limit = shared_bytes;
  *m.failure = 0;
  Fiber::bind_launcher();
  Random random(m.seed);
  std::vector<std::unique_ptr<Arena>> arenas;  // under ThreadSanitizer one a block, lest reuse look like a race
  const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
  for (std::size_t i = 0; i < blocks && *m.failure == 0; ++i) {
    blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                static_cast<unsigned>(i / grid.x / grid.y)};
    m.threads = m.pools[with_tsan() ? i % 2 : 0];
    if (with_tsan() || arenas.empty()) arenas.push_back(std::make_unique<Arena>(shared_bytes));
    arenas.back()->give_to_block();
    for (Barrier& b : m.barriers) b = {};
    for (int t = 0; t < m.count; ++t) prepare_thread(m.threads[t], t);
    order_release(&m.order_start);
    run_block(random);
  }
  m.running = nullptr;
  if (*m.failure != 0) {  // else the abandoned threads' stacks, and what they wrote, look racy to ThreadSanitizer
    for (auto& pool : m.pools) {
      for (Thread& thread : pool) thread.fiber.abandon(&m.order_end);
    }
  }
  order_acquire(&m.order_end);
  if (*m.failure != 0) throw LaunchFailure(m.failure);
}

ScheduleScope::ScheduleScope(unsigned seed) {
  const std::lock_guard lock(one_launch);
  before_ = std::exchange(machine.seed, seed);
}

ScheduleScope::~ScheduleScope() {
  const std::lock_guard lock(one_launch);
  machine.seed = before_;
}

unsigned schedules_to_try() {
  if (const char* asked = std::getenv("LOMU_EMULATION_SCHEDULES"); asked != nullptr) {
    const int n = std::atoi(asked);
    if (n > 0 && n <= 1000) return static_cast<unsigned>(n);
    throw LaunchFailure("LOMU_EMULATION_SCHEDULES must be 1 to 1000, not \"" + std::string(asked) + "\"");
  }
  return with_asan() || with_tsan() ? 1 : 4;
}

long switch_count() {
  const std::lock_guard lock(one_launch);
  return fiber_switches();
}

}  // namespace lomu::emu

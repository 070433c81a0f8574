// Where emulated threads meet: barriers and warp collectives, and what is said when they do not. This file runs on the
// threads' own stacks, so it calls nothing that a sanitized program could bring its own instrumented copy of.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/emulation/machine.h"
#include "kernels/cuda/emulation/sanitizers.h"

namespace lomu::emu {
namespace {

bool same_meeting(const Thread& a, const Thread& b) {
  return b.state == State::kWaiting && b.barrier < 0 && a.mask == b.mask &&
         (a.what == b.what || std::strcmp(a.what, b.what) == 0);
}

Thread* warp_of(const Thread& thread) {
  return machine.threads + thread.number / kWarp * kWarp;
}

// The address of the collective that `thread` is about to join: its partners' if one waits already, else a new one.
char* order_of_collective(const Thread& thread) {
  const int warp = thread.number / kWarp;
  for (int l = 0; l < lanes_of_warp(warp); ++l) {
    const Thread& other = warp_of(thread)[l];
    if (&other != &thread && same_meeting(thread, other)) return other.order;
  }
  return &machine.orders->warp[warp][machine.next_warp_order++ % Orders::kRing];
}

}  // namespace

bool same_line(Place a, Place b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

int lanes_of_warp(int warp) {
  const int left = machine.count - warp * kWarp;
  return left < kWarp ? left : kWarp;
}

int lane() {
  return machine.running->number % kWarp;
}

AsyncCopies& async_copies() {
  return machine.running->copies;
}

void memory_fence() {
  order_release(&machine.order_fence);
  order_acquire(&machine.order_fence);
}

void fail(Place place, const char* format, ...) {
  char* text = machine.failure;
  int n = std::snprintf(text, 500, "%s:%d: ", place.file != nullptr ? place.file : "?", place.line);
  n = n < 500 ? n : 499;
  va_list list;
  va_start(list, format);
  const int said = std::vsnprintf(text + n, 1000, format, list);
  va_end(list);
  n += said < 1000 ? said : 999;
  std::snprintf(text + n, 200, " [thread %d of block %u,%u,%u]", machine.running->number, blockIdx.x, blockIdx.y,
                blockIdx.z);
  order_release(&machine.order_end);  // the launcher reads the message
  machine.running->fiber.leave();
  std::abort();  // an abandoned thread never runs again
}

void* shared_piece(std::size_t offset, std::size_t bytes, int piece, Place place) {
  if (piece >= kMaxPieces) fail(place, "shared memory: more than %d pieces", kMaxPieces);
  if (offset > machine.shared_limit || bytes > machine.shared_limit - offset) {
    fail(place, "shared memory: piece %d of %zu bytes at byte %zu, launched with %zu", piece, bytes, offset,
         machine.shared_limit);
  }
  char* p = machine.arena + offset + (static_cast<std::size_t>(piece) + 1) * kRedzone;
  allow(p, bytes);
  return p;
}

void barrier(int id, int expected, bool one_place, Place place) {
  Thread& self = *machine.running;
  if (id < 0 || id >= kBarriers) fail(place, "barrier %d: there are %d", id, kBarriers);
  if (!one_place && (expected % kWarp != 0 || expected < kWarp || expected > machine.count)) {
    fail(place, "barrier %d: %d threads expected, which is no number of whole warps of this block", id, expected);
  }
  Barrier& b = machine.barriers[id];
  if (b.arrived == 0) b = {0, expected, self.number, b.generation, place};
  if (b.expected != expected) {
    fail(place, "barrier %d: %d threads expected here, %d at %s:%d", id, expected, b.expected, b.place.file,
         b.place.line);
  }
  if (one_place && !same_line(b.place, place)) {
    fail(place, "divergent barrier: thread %d is at %s:%d", b.first, b.place.file, b.place.line);
  }
  char* order = &machine.orders->barrier[id][b.generation & 1];
  order_release(order);
  if (++b.arrived == expected) {
    b.arrived = 0;
    ++b.generation;
    for (int t = 0; t < machine.count; ++t) {
      Thread& other = machine.threads[t];
      if (other.state != State::kWaiting || other.barrier != id) continue;
      other.state = State::kReady;
      other.barrier = -1;
    }
  } else {
    self.what = "barrier number";
    self.mask = static_cast<unsigned>(id);
    self.barrier = id;
    self.place = place;
    self.state = State::kWaiting;
    self.fiber.leave();
  }
  order_acquire(order);
}

bool complete_collective(Thread& thread) {
  Thread* warp = warp_of(thread);
  void* arguments[kWarp] = {};
  unsigned active = 0;
  for (int l = 0; l < lanes_of_warp(thread.number / kWarp); ++l) {
    const Thread& other = warp[l];
    const bool named = (thread.mask >> l & 1) != 0;
    if (!named || other.state == State::kEnded) continue;  // CUDA: "all non-exited threads named in mask"
    if (!same_meeting(thread, other)) return false;
    if (!same_line(thread.place, other.place)) {
      fail(thread.place, "divergent %s: lane %d of the warp is at %s:%d", thread.what, l, other.place.file,
           other.place.line);
    }
    active |= 1u << l;
    arguments[l] = other.arguments;
  }
  if (thread.resolve != nullptr) thread.resolve(arguments, active, thread.place);
  for (int l = 0; l < kWarp; ++l) {
    if (active >> l & 1) warp[l].state = State::kReady;
  }
  return true;
}

void warp_collective(const char* what, unsigned mask, void* arguments, Resolve resolve, bool orders, Place place) {
  Thread& self = *machine.running;
  if (!(mask >> lane() & 1)) fail(place, "%s: lane %d calls it but is not in its mask %#x", what, lane(), mask);
  self.what = what;
  self.place = place;
  self.barrier = -1;
  self.mask = mask;
  self.arguments = arguments;
  self.resolve = resolve;
  self.order = orders ? order_of_collective(self) : nullptr;
  char* order = self.order;
  if (orders) order_release(order);
  self.state = State::kWaiting;
  if (!complete_collective(self)) self.fiber.leave();
  if (orders) order_acquire(order);
}

void thread_life() {
  for (;;) {
    order_acquire(&machine.order_start);
    machine.body(machine.closure);
    Thread& self = *machine.running;
    if (self.copies.count > 0) {
      fail(self.copies.copy[0].place, "a thread ended with %d cp.async in flight, the first from here",
           self.copies.count);
    }
    order_release(&machine.order_end);
    self.state = State::kEnded;
    ++machine.ended;
    for (int l = 0; l < lanes_of_warp(self.number / kWarp); ++l) {  // others may have waited for this lane alone
      Thread& other = warp_of(self)[l];
      if (other.state == State::kWaiting && other.barrier < 0) complete_collective(other);
    }
    self.fiber.park();
  }
}

void report_deadlock() {
  char* text = machine.failure;
  int n = std::snprintf(text, kMaxFailureText, "no thread of the block can go on:");
  bool told[kMaxThreads] = {};
  for (int t = 0; t < machine.count && n < 3000; ++t) {
    const Thread& first = machine.threads[t];
    if (told[t] || first.state != State::kWaiting) continue;
    int alike = 0;
    for (int u = t; u < machine.count; ++u) {
      const Thread& other = machine.threads[u];
      if (other.state != State::kWaiting || !same_line(other.place, first.place) || other.mask != first.mask) continue;
      told[u] = true;
      ++alike;
    }
    n += std::snprintf(text + n, 500, "\n  %d threads (first %d) wait at %s:%d, %s %#x", alike, t, first.place.file,
                       first.place.line, first.what, first.mask);
  }
  if (machine.ended > 0) std::snprintf(text + n, 200, "\n  %d threads have ended", machine.ended);
}

}  // namespace lomu::emu

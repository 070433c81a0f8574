// The threads of one rank. A Worker is what a thread needs to itself: its tile products and scratch memory.
#pragma once

#include <omp.h>

#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/memory.h"
#include "kernels/scratch_sizes.h"

namespace lomu::cpu {

/// Memory that grows to the largest request and is then reused, by slot: an operation can hold several pieces at once.
class Scratch {
 public:
  /// At least `count` elements, 64-byte aligned, content undefined, valid until a larger request for the same slot.
  template <class T>
  T* scratch(std::size_t slot, std::int64_t count, Memory& memory) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (slot >= slots_.size()) slots_.resize(slot + 1);
    if (slots_[slot].size() < bytes) {
      slots_[slot] = Buffer();
      slots_[slot] = memory.allocate(Scope::kWorkspace, bytes, "thread scratch");
    }
    return slots_[slot].as<T>();
  }

  void reserve(const ScratchSizes& sizes, Memory& memory) {
    for (std::size_t i = 0; i < sizes.by_slot().size(); ++i) {
      scratch<std::byte>(i, static_cast<std::int64_t>(sizes.by_slot()[i]), memory);
    }
  }

 private:
  std::vector<Buffer> slots_;
};

/// What operations need: each thread for itself, and all together.
struct TeamScratch {
  ScratchSizes worker, team;
};

class Worker : public Scratch {
 public:
  TileGemm gemm;
};

class Team {
 public:
  Team(int threads, Memory& memory) : memory_(memory), workers_(static_cast<std::size_t>(threads)) {}

  [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()); }
  [[nodiscard]] Memory& memory() { return memory_; }
  /// Scratch that all threads of one operation share; same rules as Worker::scratch.
  template <class T>
  T* scratch(std::size_t slot, std::int64_t count) {
    return shared_.scratch<T>(slot, count, memory_);
  }

  [[nodiscard]] std::size_t planned_bytes(const TeamScratch& sizes) const {
    return workers_.size() * sizes.worker.total() + sizes.team.total();
  }
  void reserve(const TeamScratch& sizes) {
    for (Worker& worker : workers_) worker.reserve(sizes.worker, memory_);
    shared_.reserve(sizes.team, memory_);
  }

  /// Runs body(unit, worker) for every unit in [0, units), each exactly once, in any order. Units must write disjoint
  /// memory. The first exception is rethrown here after all threads have stopped.
  template <class Body>
  void for_each(std::int64_t units, const Body& body) {
    if (units <= 0) return;
    if (workers_.size() == 1 || units == 1) {
      for (std::int64_t i = 0; i < units; ++i) body(i, workers_[0]);
      return;
    }
    std::exception_ptr failure;
    std::mutex guard;
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast <int>(workers_.size()))
    for (std::int64_t i = 0; i < units; ++i) {
      try {
        body(i, workers_[static_cast<std::size_t>(omp_get_thread_num())]);
      } catch (...) {
        const std::lock_guard lock(guard);
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
  }

 private:
  Memory& memory_;
  Scratch shared_;
  std::vector<Worker> workers_;
};

}  // namespace lomu::cpu

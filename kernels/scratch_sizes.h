// How much scratch memory an operation needs, by slot: what a backend plans with before it runs anything.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lomu {

/// The largest request for each slot. Slots are numbered by whoever uses them.
class ScratchSizes {
 public:
  template <class T>
  void need(std::size_t slot, std::int64_t count) {
    need_bytes(slot, static_cast<std::size_t>(count) * sizeof(T));
  }
  void need_bytes(std::size_t slot, std::size_t bytes) {
    if (slot >= bytes_.size()) bytes_.resize(slot + 1);
    bytes_[slot] = std::max(bytes_[slot], bytes);
  }
  [[nodiscard]] std::span<const std::size_t> by_slot() const { return bytes_; }
  [[nodiscard]] std::size_t total() const {
    std::size_t sum = 0;
    for (const std::size_t bytes : bytes_) sum += bytes;
    return sum;
  }

 private:
  std::vector<std::size_t> bytes_;
};

}  // namespace lomu

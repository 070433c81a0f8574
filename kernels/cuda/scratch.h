// Device memory that operations use between their own beginning and end, by slot: it grows to the largest request and
// stays. Operations of a backend run one after the other on one stream, so each may use every slot again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/memory.h"
#include "kernels/scratch_sizes.h"

namespace lomu::cuda {

enum class Slot : std::uint8_t {
  kWide,        ///< a product in f32 before it is rounded
  kRounded,     ///< dy in the activation's type
  kLowRank,     ///< dS
  kDropped,     ///< dropout(x)
  kPartials,    ///< what comes back through one adapter
  kFactors,     ///< gradients of all right factors of a group
  kAttention,   ///< attention's backward pass
  kLogits,      ///< a chunk of logits
  kLogitsGrad,  ///< its gradient
  kCount,
};

/// The most that operations will ask of a slot.
template <class T>
void need(ScratchSizes& sizes, Slot slot, std::int64_t count) {
  sizes.need<T>(static_cast<std::size_t>(slot), count);
}

class Scratch {
 public:
  explicit Scratch(Memory& memory) : memory_(memory) {}

  /// At least `count` elements, content undefined, valid until a larger request for the same slot.
  template <class T>
  T* take(Slot slot, std::int64_t count) {
    return reinterpret_cast<T*>(bytes(slot, static_cast<std::size_t>(count) * sizeof(T)));
  }
  std::byte* bytes(Slot slot, std::size_t size) {
    Buffer& buffer = buffers_[static_cast<std::size_t>(slot)];
    if (buffer.size() < size) {
      buffer = Buffer();
      buffer = memory_.allocate(Scope::kWorkspace, size, "operations' scratch");
      ++generation_;
    }
    return buffer.data();
  }
  /// Changes when a slot has moved.
  [[nodiscard]] std::size_t generation() const { return generation_; }
  /// `sizes` by the numbers of Slot.
  void reserve(const ScratchSizes& sizes) {
    for (std::size_t i = 0; i < sizes.by_slot().size(); ++i) bytes(static_cast<Slot>(i), sizes.by_slot()[i]);
  }

 private:
  Memory& memory_;
  std::array<Buffer, static_cast<std::size_t>(Slot::kCount)> buffers_;
  std::size_t generation_ = 0;
};

}  // namespace lomu::cuda

// Small host arrays that operations read on the device (token ids, positions, tiles of attention). All layers of a
// micro-batch pass the same ones, so an array whose bytes are there already is not sent again. Arrays may also be
// bound: sent once to a place that stays the same from micro-batch to micro-batch, whatever they hold.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <utility>
#include <vector>

#include "kernels/memory.h"

namespace lomu::cuda {

class Uploads {
  struct Entry;

 public:
  explicit Uploads(Memory& memory) : memory_(memory) {}

  /// Bytes of all arrays together if none is larger than `largest`.
  static std::size_t planned_bytes(std::size_t largest) { return (kKept + kPinned + kBound) * largest; }
  /// Takes them now, for a caller that must not allocate later.
  void reserve(std::size_t largest);

  /// The array on the device, valid until kKept other arrays have been asked for. Trivially copyable T.
  template <class T>
  const T* on_device(std::span<const T> values) {
    return reinterpret_cast<const T*>(find_or_send(std::as_bytes(values)));
  }

  /// While this lives, on_device() of a bound array gives its fixed place.
  class Binding {
   public:
    explicit Binding(Uploads& uploads) : uploads_(&uploads) {}
    Binding(const Binding&) = delete;
    Binding& operator=(const Binding&) = delete;
    ~Binding() { uploads_->bound_count_ = 0; }

   private:
    Uploads* uploads_;
  };
  /// Sends the arrays, at most kBound of them, number i always to the same place; they are known by their address.
  [[nodiscard]] Binding bind(std::span<const std::span<const std::int32_t>> arrays);

  /// Keeps arrays where and as they are.
  class Pins {
   public:
    Pins() = default;
    explicit Pins(std::vector<Entry*> entries);
    Pins(Pins&& other) noexcept : entries_(std::exchange(other.entries_, {})) {}
    Pins& operator=(Pins&& other) noexcept {
      std::swap(entries_, other.entries_);
      return *this;
    }
    ~Pins();

   private:
    std::vector<Entry*> entries_;
  };
  /// From here to pin_watched(): notes which arrays are asked for.
  void watch() { watched_.clear(); }
  [[nodiscard]] Pins pin_watched() { return Pins(std::move(watched_)); }

  static constexpr std::size_t kBound = 4;  ///< ids, positions, rows of the head, targets

 private:
  static constexpr std::size_t kKept = 16;    ///< a micro-batch has fewer
  static constexpr std::size_t kPinned = 32;  ///< of 8 recordings: attention's, forward and backward, for two windows
  struct Entry {
    std::vector<std::byte> bytes;
    Buffer buffer;
    int pins = 0;
  };
  struct Bound {
    const std::byte* host = nullptr;
    std::size_t size = 0;
    Buffer buffer;
  };

  const std::byte* find_or_send(std::span<const std::byte> bytes);
  /// One whose content may go, at the front.
  Entry& entry_to_fill();
  void fit(Buffer& buffer, std::size_t bytes);

  Memory& memory_;
  std::list<Entry> entries_;  ///< the last used first
  std::array<Bound, kBound> bound_;
  std::size_t bound_count_ = 0;
  std::vector<Entry*> watched_;
};

}  // namespace lomu::cuda

// Small host arrays that operations read on the device (token ids, positions, tiles of attention). All layers of a
// micro-batch pass the same ones, so an array whose bytes are there already is not sent again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "kernels/memory.h"

namespace lomu::cuda {

class Uploads {
 public:
  explicit Uploads(Memory& memory) : memory_(memory) {}

  /// Bytes of all arrays together if none is larger than `largest`.
  static std::size_t planned_bytes(std::size_t largest) { return kKept * largest; }
  /// Takes them now, for a caller that must not allocate later.
  void reserve(std::size_t largest);

  /// The array on the device, valid until kKept other arrays have been asked for. Trivially copyable T.
  template <class T>
  const T* on_device(std::span<const T> values) {
    return reinterpret_cast<const T*>(find_or_send(std::as_bytes(values)));
  }

 private:
  static constexpr std::size_t kKept = 16;  ///< a micro-batch has fewer
  struct Entry {
    std::vector<std::byte> bytes;
    Buffer buffer;
  };

  const std::byte* find_or_send(std::span<const std::byte> bytes);

  Memory& memory_;
  std::list<Entry> entries_;  ///< the last used first
};

}  // namespace lomu::cuda

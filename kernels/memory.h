// Memory from named scopes. Every large allocation says what it is for, so that a run can print where its bytes went
// and an out-of-memory error is a table by purpose instead of a bare bad_alloc.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/storage.h"

namespace lomu {

enum class Scope : std::uint8_t { kWeights, kAdapters, kOptimizer, kActivations, kWorkspace, kComm };
inline constexpr std::size_t kScopes = 6;

/// "weights", "adapters", "optimizer", "activations", "workspace", "comm".
std::string_view name_of(Scope scope);

/// "1234.5 MB", of 10^6 bytes.
std::string in_megabytes(std::size_t bytes);

class Memory;

/// Owns one aligned allocation; returns it to its ledger when it goes.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&&) noexcept;
  Buffer& operator=(Buffer&&) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  template <class T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  friend class Memory;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  Scope scope_ = Scope::kWorkspace;
  Memory* memory_ = nullptr;
};

/// The memory of one storage and its ledger. Outlives every Buffer it gave out. Thread-safe.
class Memory {
 public:
  static constexpr std::size_t kAlignment = 64;  ///< one cache line, one AVX-512 register

  Memory() : Memory(host_storage()) {}
  /// `storage` outlives this.
  explicit Memory(Storage& storage) : storage_(storage) {}
  [[nodiscard]] Storage& storage() const { return storage_; }

  /// Zero-filled bytes (on the host fresh pages, so untouched ones cost nothing). Throws MemoryError with what the
  /// storage has and the ledger's table when there is no more; `label` names the buffer in that message.
  [[nodiscard]] Buffer allocate(Scope scope, std::size_t bytes, std::string_view label);

  /// Counts bytes that somebody else allocated (a shared mapping of weights).
  void note_external(Scope scope, std::size_t bytes);

  [[nodiscard]] std::size_t current(Scope scope) const { return current_[static_cast<std::size_t>(scope)]; }
  [[nodiscard]] std::size_t peak(Scope scope) const { return peak_[static_cast<std::size_t>(scope)]; }
  [[nodiscard]] std::size_t current_total() const;

  /// One line a scope: name, bytes now, peak bytes.
  [[nodiscard]] std::string table() const;

 private:
  friend class Buffer;
  void add(Scope scope, std::size_t bytes);
  void release(const Buffer& buffer) noexcept;

  Storage& storage_;
  std::array<std::atomic<std::size_t>, kScopes> current_{};
  std::array<std::atomic<std::size_t>, kScopes> peak_{};
};

}  // namespace lomu

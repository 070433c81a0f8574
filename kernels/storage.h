// Where tensors live: the memory of this process, or a device's. A backend works in one storage (Ops::storage); code
// that puts numbers into tensors or takes them out goes through it and is then right for both.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/tensor.h"

namespace lomu {

/// How large a storage is. Both zero: it does not say.
struct StorageRoom {
  std::size_t total = 0;
  std::size_t free = 0;  ///< bytes that could be allocated now, by whoever asks first
};

class Storage {
 public:
  virtual ~Storage() = default;
  /// Whether its addresses may be read and written by ordinary code.
  [[nodiscard]] virtual bool on_host() const = 0;
  [[nodiscard]] virtual StorageRoom room() const = 0;
  /// Zero-filled bytes, aligned to Memory::kAlignment; null when there are no more.
  virtual std::byte* allocate(std::size_t bytes) = 0;
  virtual void release(std::byte* data, std::size_t bytes) noexcept = 0;

  // Copies see everything that operations queued before, and are finished when they return.
  virtual void upload(void* to, const void* host, std::size_t bytes) = 0;
  virtual void download(void* host, const void* from, std::size_t bytes) = 0;
  virtual void zero(void* to, std::size_t bytes) = 0;
  /// `rows` runs of `row_bytes`, from one place of this storage to another; pitches in bytes.
  virtual void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                         std::size_t row_bytes, std::size_t rows) = 0;
};

/// The memory of this process: fresh pages by mmap.
Storage& host_storage();

/// A tensor's numbers where ordinary code can read them: itself if its storage is the host's, else a copy.
class HostCopy {
 public:
  HostCopy(Storage& storage, const Tensor& tensor);
  [[nodiscard]] const Tensor& tensor() const { return tensor_; }

 private:
  std::vector<std::byte> bytes_;
  Tensor tensor_;
};

}  // namespace lomu

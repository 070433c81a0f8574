#include "kernels/storage.h"

#include <sys/mman.h>

#include <cstring>

#include "kernels/host_room.h"

namespace lomu {
namespace {

class HostStorage final : public Storage {
 public:
  [[nodiscard]] bool on_host() const override { return true; }
  [[nodiscard]] StorageRoom room() const override { return host_room(); }

  std::byte* allocate(std::size_t bytes) override {
    // mmap, not malloc: pages are zero and arrive on first touch, and go back to the system when the buffer goes.
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    // Large pages spare the address translation of the matrix products a few percent; a refusal changes nothing.
    if (bytes >= (std::size_t{1} << 21)) madvise(data, bytes, MADV_HUGEPAGE);
    return static_cast<std::byte*>(data);
  }
  void release(std::byte* data, std::size_t bytes) noexcept override { munmap(data, bytes); }

  void upload(void* to, const void* host, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to, host, bytes);
  }
  void download(void* host, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(host, from, bytes);
  }
  void zero(void* to, std::size_t bytes) override {
    if (bytes > 0) std::memset(to, 0, bytes);
  }
  void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t row_bytes,
                 std::size_t rows) override {
    auto* out = static_cast<std::byte*>(to);
    const auto* in = static_cast<const std::byte*>(from);
    for (std::size_t i = 0; i < rows; ++i) std::memcpy(out + i * to_pitch, in + i * from_pitch, row_bytes);
  }
};

}  // namespace

Storage& host_storage() {
  static HostStorage storage;
  return storage;
}

HostCopy::HostCopy(Storage& storage, const Tensor& tensor) : tensor_(tensor) {
  if (storage.on_host() || tensor.empty() || tensor.size() == 0) return;
  const std::int64_t elements = (tensor.rows - 1) * tensor.ld + tensor.cols;
  bytes_.resize(static_cast<std::size_t>(elements) * size_of(tensor.dtype));
  storage.download(bytes_.data(), tensor.data, bytes_.size());
  tensor_.data = bytes_.data();
}

}  // namespace lomu

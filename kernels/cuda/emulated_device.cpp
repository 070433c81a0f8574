#include "kernels/cuda/device.h"

namespace lomu::cuda {
namespace {

class EmulatedStorage final : public Storage {
 public:
  [[nodiscard]] bool on_host() const override { return false; }
  [[nodiscard]] StorageRoom room() const override { return host_storage().room(); }
  std::byte* allocate(std::size_t bytes) override { return host_storage().allocate(bytes); }
  void release(std::byte* data, std::size_t bytes) noexcept override { host_storage().release(data, bytes); }
  void upload(void* to, const void* host, std::size_t bytes) override { host_storage().upload(to, host, bytes); }
  void download(void* host, const void* from, std::size_t bytes) override {
    host_storage().download(host, from, bytes);
  }
  void zero(void* to, std::size_t bytes) override { host_storage().zero(to, bytes); }
  void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t row_bytes,
                 std::size_t rows) override {
    host_storage().copy_rows(to, to_pitch, from, from_pitch, row_bytes, rows);
  }
};

class EmulatedDevice final : public Device {
 public:
  [[nodiscard]] Storage& storage() override { return storage_; }
  [[nodiscard]] Stream stream() const override { return nullptr; }
  [[nodiscard]] bool fast_float64() const override { return true; }
  [[nodiscard]] std::unique_ptr<MatrixProducts> make_products(Memory&) override { return make_plain_products(); }

 private:
  EmulatedStorage storage_;
};

}  // namespace

std::unique_ptr<Device> make_emulated_device() {
  return std::make_unique<EmulatedDevice>();
}

}  // namespace lomu::cuda

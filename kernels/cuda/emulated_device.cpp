#include <string>
#include <utility>

#include "kernels/cuda/device.h"
#include "kernels/cuda/emulation/recording.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

/// Does `work`, or notes it where work is being recorded.
template <class Work>
void queue(Work work) {
  if (emu::Recorded* recorded = emu::recording()) {
    recorded->push_back(work);
  } else {
    work();
  }
}

void refuse_while_recording(const char* what) {
  if (emu::recording() != nullptr) throw Error(std::string(what) + " while work is recorded");
}

class EmulatedStorage final : public Storage {
 public:
  [[nodiscard]] bool on_host() const override { return false; }
  [[nodiscard]] StorageRoom room() const override { return host_storage().room(); }
  std::byte* allocate(std::size_t bytes) override { return host_storage().allocate(bytes); }
  void release(std::byte* data, std::size_t bytes) noexcept override { host_storage().release(data, bytes); }
  void upload(void* to, const void* host, std::size_t bytes) override {
    refuse_while_recording("a copy from the host");
    host_storage().upload(to, host, bytes);
  }
  void download(void* host, const void* from, std::size_t bytes) override {
    refuse_while_recording("a copy to the host");
    host_storage().download(host, from, bytes);
  }
  void zero(void* to, std::size_t bytes) override {
    queue([=] { host_storage().zero(to, bytes); });
  }
  void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t row_bytes,
                 std::size_t rows) override {
    queue([=] { host_storage().copy_rows(to, to_pitch, from, from_pitch, row_bytes, rows); });
  }
};

class EmulatedProducts final : public MatrixProducts {
 public:
  void run(const Product& product, Stream) override {
    queue([product] { multiply_plainly(product); });
  }
};

class EmulatedWork final : public RecordedWork {
 public:
  explicit EmulatedWork(emu::Recorded recorded) : recorded_(std::move(recorded)) {}
  void replay() override {
    for (const auto& work : recorded_) work();
  }

 private:
  emu::Recorded recorded_;
};

/// As a CUDA graph: what a body queues is noted with its arguments, and a body that waits is refused.
class EmulatedRecorder final : public StreamRecorder {
 public:
  std::unique_ptr<RecordedWork> record(const std::function<void()>& body) override {
    emu::Recorded recorded;
    emu::recording() = &recorded;
    try {
      body();
    } catch (const Error&) {
      emu::recording() = nullptr;
      return nullptr;
    } catch (...) {
      emu::recording() = nullptr;
      throw;
    }
    emu::recording() = nullptr;
    return std::make_unique<EmulatedWork>(std::move(recorded));
  }
};

class EmulatedDevice final : public Device {
 public:
  [[nodiscard]] Storage& storage() override { return storage_; }
  [[nodiscard]] Stream stream() const override { return nullptr; }
  [[nodiscard]] bool fast_float64() const override { return true; }
  [[nodiscard]] std::unique_ptr<MatrixProducts> make_products(Memory&) override {
    return std::make_unique<EmulatedProducts>();
  }
  [[nodiscard]] std::unique_ptr<StreamRecorder> make_recorder() override {
    return std::make_unique<EmulatedRecorder>();
  }

 private:
  EmulatedStorage storage_;
};

}  // namespace

std::unique_ptr<Device> make_emulated_device() {
  return std::make_unique<EmulatedDevice>();
}

}  // namespace lomu::cuda

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <cstdint>
#include <utility>

#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/device.h"
#include "kernels/error.h"

namespace lomu::cuda {
namespace {

constexpr int kOldestMajor = 8;  // bf16 tensor cores and cp.async

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw Error(fmt::format("{} failed: {}", call, cudaGetErrorString(status)), "CUDA");
}

/// Device memory. Copies run on the stream of the operations and are waited for.
class CudaStorage final : public Storage {
 public:
  CudaStorage(int device, cudaStream_t stream) : device_(device), stream_(stream) {}

  [[nodiscard]] bool on_host() const override { return false; }
  [[nodiscard]] StorageRoom room() const override {
    use();
    StorageRoom room;
    check(cudaMemGetInfo(&room.free, &room.total), "cudaMemGetInfo");
    return room;
  }

  std::byte* allocate(std::size_t bytes) override {
    use();
    void* data = nullptr;
    if (cudaMalloc(&data, bytes) != cudaSuccess) {
      cudaGetLastError();  // the refusal is told by null; it must not be reported by the next call
      return nullptr;
    }
    zero(data, bytes);
    return static_cast<std::byte*>(data);
  }
  void release(std::byte* data, std::size_t) noexcept override { cudaFree(data); }

  void upload(void* to, const void* host, std::size_t bytes) override { copy(to, host, bytes, cudaMemcpyHostToDevice); }
  void download(void* host, const void* from, std::size_t bytes) override {
    copy(host, from, bytes, cudaMemcpyDeviceToHost);
  }
  void zero(void* to, std::size_t bytes) override {
    use();
    check(cudaMemsetAsync(to, 0, bytes, stream_), "cudaMemsetAsync");
  }
  void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t row_bytes,
                 std::size_t rows) override {
    use();
    check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, row_bytes, rows, cudaMemcpyDeviceToDevice, stream_),
          "cudaMemcpy2DAsync");
  }

 private:
  /// The device is a property of the calling thread, and weights are loaded by several.
  void use() const { check(cudaSetDevice(device_), "cudaSetDevice"); }

  void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return;
    use();
    check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  int device_;
  cudaStream_t stream_;
};

class CudaGraph final : public RecordedWork {
 public:
  CudaGraph(cudaGraphExec_t graph, cudaStream_t stream) : graph_(graph), stream_(stream) {}
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }
  void replay() override { check(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t graph_;
  cudaStream_t stream_;
};

/// Captures a stream. Whatever goes wrong on the way is answered by null and leaves no error behind: the same work can
/// be queued without a graph.
class CudaRecorder final : public StreamRecorder {
 public:
  explicit CudaRecorder(cudaStream_t stream) : stream_(stream) {}

  std::unique_ptr<RecordedWork> record(const std::function<void()>& body) override {
    // Other threads may go on using the device (loading, checkpoints).
    if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) != cudaSuccess) return forgive();
    bool whole = true;
    try {
      body();
    } catch (const Error&) {
      whole = false;
    } catch (...) {
      // A stream that went on capturing would do nothing any more.
      if (const cudaGraph_t graph = end(); graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    const cudaGraph_t graph = end();
    if (graph == nullptr) return forgive();
    if (!whole) {
      cudaGraphDestroy(graph);
      return forgive();
    }
    cudaGraphExec_t executable = nullptr;
    const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    if (made != cudaSuccess) return forgive();
    return std::make_unique<CudaGraph>(executable, stream_);
  }

 private:
  /// What was captured; null where the capture had been broken.
  cudaGraph_t end() {
    cudaGraph_t graph = nullptr;
    return cudaStreamEndCapture(stream_, &graph) == cudaSuccess ? graph : nullptr;
  }
  static std::unique_ptr<RecordedWork> forgive() {
    cudaGetLastError();
    return nullptr;
  }

  cudaStream_t stream_;
};

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, ProductOptions products) : products_(std::move(products)) {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
      throw UsageError(fmt::format("no CUDA device can be used: {}",
                                   status == cudaSuccess ? "none is there" : cudaGetErrorString(status)),
                       "device", "check the driver with nvidia-smi, or use device cpu");
    }
    if (index >= count) {
      throw UsageError(fmt::format("device {} of {}", index, count), "device",
                       "start one rank for each GPU of a machine");
    }
    check(cudaSetDevice(index), "cudaSetDevice");
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    if (properties.major < kOldestMajor) {
      throw UsageError(
          fmt::format("{} has compute capability {}.{}", properties.name, properties.major, properties.minor), "device",
          "8.0 (A100) or newer is needed; use device cpu");
    }
    fast_float64_ = properties.minor == 0 && properties.major <= 10;
    major_ = properties.major;
    minor_ = properties.minor;
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    storage_ = std::make_unique<CudaStorage>(index, stream_);
  }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;
  ~CudaDevice() override { cudaStreamDestroy(stream_); }

  [[nodiscard]] Storage& storage() override { return *storage_; }
  [[nodiscard]] Stream stream() const override { return stream_; }
  [[nodiscard]] bool fast_float64() const override { return fast_float64_; }
  [[nodiscard]] std::unique_ptr<MatrixProducts> make_products(Memory& memory) override {
    return make_cublaslt_products(memory, products_);
  }
  [[nodiscard]] std::unique_ptr<StreamRecorder> make_recorder() override {
    return std::make_unique<CudaRecorder>(stream_);
  }
  [[nodiscard]] std::unique_ptr<AttentionGraphs> make_attention_graphs() override {
    return open_cudnn_attention(major_, minor_, stream_);
  }

 private:
  bool fast_float64_ = false;
  int major_ = 0;
  int minor_ = 0;
  ProductOptions products_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<CudaStorage> storage_;
};

}  // namespace

std::unique_ptr<Device> make_cuda_device(int index, const ProductOptions& products) {
  return std::make_unique<CudaDevice>(index, products);
}

}  // namespace lomu::cuda

#include "comm/nccl/streams.h"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include "kernels/error.h"

namespace lomu {

void check_cuda(int status, const char* call) {
  if (status == cudaSuccess) return;
  throw Error(fmt::format("{} failed: {}", call, cudaGetErrorString(static_cast<cudaError_t>(status))), "CUDA");
}

StreamMark::StreamMark() {
  check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
}

StreamMark::~StreamMark() {
  cudaEventDestroy(event_);
}

void StreamMark::record(cuda::Stream stream) {
  check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord");
}

void StreamMark::hold(cuda::Stream stream) const {
  check_cuda(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
}

bool StreamMark::passed() const {
  return cudaEventQuery(event_) != cudaErrorNotReady;
}

UrgentStream::~UrgentStream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void UrgentStream::create() {
  int least = 0, greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "cudaStreamCreateWithPriority");
}

}  // namespace lomu

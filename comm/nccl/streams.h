// Streams and the marks by which one waits for another, owned. For nccl_transport.cpp; the toolkit's types stay out of
// sight.
#pragma once

#include "kernels/cuda/stream.h"

struct CUevent_st;

namespace lomu {

/// Throws Error naming `call` unless `status`, a cudaError_t, is success.
void check_cuda(int status, const char* call);

/// A place in a stream: what was queued before it has been done once it is passed.
class StreamMark {
 public:
  StreamMark();
  StreamMark(const StreamMark&) = delete;
  StreamMark& operator=(const StreamMark&) = delete;
  ~StreamMark();

  void record(cuda::Stream stream);
  /// What is queued on `stream` from now on waits for this place.
  void hold(cuda::Stream stream) const;
  /// Also true after a device error, which other calls report.
  [[nodiscard]] bool passed() const;

 private:
  CUevent_st* event_ = nullptr;
};

/// A stream whose work goes before that of other streams of its device.
class UrgentStream {
 public:
  UrgentStream() = default;
  UrgentStream(const UrgentStream&) = delete;
  UrgentStream& operator=(const UrgentStream&) = delete;
  ~UrgentStream();
  /// On the device of the calling thread.
  void create();
  [[nodiscard]] cuda::Stream get() const { return stream_; }

 private:
  cuda::Stream stream_ = nullptr;
};

}  // namespace lomu

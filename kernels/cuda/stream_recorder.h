// What a stream was given to do, kept to be given again as a whole: a CUDA graph.
#pragma once

#include <functional>
#include <memory>

namespace lomu::cuda {

class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  /// Queues it all again: the same kernels with the same arguments.
  virtual void replay() = 0;
};

class StreamRecorder {
 public:
  virtual ~StreamRecorder() = default;
  /// Runs `body` and keeps what it queues, none of which is done. Null if the stream or a library refuses, or `body`
  /// waits for the device or copies from or to the host: the stream is then as before.
  virtual std::unique_ptr<RecordedWork> record(const std::function<void()>& body) = 0;
};

}  // namespace lomu::cuda

// Micro-batches of the same shape queue the same operations: the second of a shape is also recorded, and those after it
// are one launch of a graph instead of a thousand of kernels. What a batch consists of reaches the kernels through
// arrays at fixed places (Uploads::bind), so nothing but their content differs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>

#include "kernels/cuda/scratch.h"
#include "kernels/cuda/stream_recorder.h"
#include "kernels/cuda/uploads.h"

namespace lomu::cuda {

class StepRecordings {
 public:
  /// `recorder` may be null: then every body runs. The others outlive this.
  StepRecordings(std::unique_ptr<StreamRecorder> recorder, Uploads& uploads, const Scratch& scratch)
      : recorder_(std::move(recorder)), uploads_(uploads), scratch_(scratch) {}

  /// Ops::run_repeatable.
  void run(std::uint64_t key, std::span<const std::span<const std::int32_t>> arrays, const std::function<void()>& body);

  /// How many times work was queued again instead of a body run.
  [[nodiscard]] std::size_t replays() const { return replays_; }

 private:
  // Shapes that come back come back soon; more would only hold device memory.
  static constexpr std::size_t kRecorded = 8;
  static constexpr std::size_t kSeen = 256;

  struct Entry {
    std::uint64_t key = 0;
    bool refused = false;
    Uploads::Pins pins;  ///< arrays that the work reads
    std::unique_ptr<RecordedWork> work;
  };

  /// The entry of a key, moved to the front; null where it has not been seen.
  Entry* find(std::uint64_t key);
  void record(Entry& entry, const std::function<void()>& body);

  std::unique_ptr<StreamRecorder> recorder_;
  Uploads& uploads_;
  const Scratch& scratch_;
  std::size_t scratch_generation_ = 0;
  std::list<Entry> entries_;  ///< the last used first
  std::size_t replays_ = 0;
};

}  // namespace lomu::cuda

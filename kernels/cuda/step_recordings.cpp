#include "kernels/cuda/step_recordings.h"

#include <algorithm>

namespace lomu::cuda {

StepRecordings::Entry* StepRecordings::find(std::uint64_t key) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return &entries_.front();
}

void StepRecordings::run(std::uint64_t key, std::span<const std::span<const std::int32_t>> arrays,
                         const std::function<void()>& body) {
  if (!recorder_) {
    body();
    return;
  }
  const Uploads::Binding bound = uploads_.bind(arrays);
  // What was recorded works in the scratch memory of its time.
  if (scratch_.generation() != scratch_generation_) entries_.clear();
  scratch_generation_ = scratch_.generation();
  Entry* entry = find(key);
  if (entry == nullptr) {
    body();
    entries_.emplace_front().key = key;
    if (entries_.size() > kSeen) entries_.pop_back();
    return;
  }
  if (entry->work) {
    entry->work->replay();
    ++replays_;
    return;
  }
  body();
  if (!entry->refused) record(*entry, body);
}

// After a run of the same body: all arrays and plans that it needs are there.
void StepRecordings::record(Entry& entry, const std::function<void()>& body) {
  const std::size_t grown = scratch_.generation();
  uploads_.watch();
  entry.work = recorder_->record(body);
  entry.pins = uploads_.pin_watched();
  entry.refused = !entry.work || scratch_.generation() != grown;
  if (entry.refused) {
    entry.work.reset();
    entry.pins = {};
    return;
  }
  std::size_t recorded = 0;
  for (Entry& other : entries_) {
    if (!other.work || ++recorded <= kRecorded) continue;
    other.work.reset();
    other.pins = {};
  }
}

}  // namespace lomu::cuda

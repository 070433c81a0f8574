#include "kernels/cuda/uploads.h"

#include <algorithm>
#include <iterator>

namespace lomu::cuda {

void Uploads::reserve(std::size_t largest) {
  entries_.resize(kKept);
  for (Entry& entry : entries_) {
    if (entry.buffer.size() >= largest) continue;
    entry.bytes.clear();
    entry.buffer = Buffer();
    entry.buffer = memory_.allocate(Scope::kWorkspace, largest, "small arrays");
  }
}

const std::byte* Uploads::find_or_send(std::span<const std::byte> bytes) {
  if (bytes.empty()) return nullptr;
  const auto same = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) {
    return std::equal(e.bytes.begin(), e.bytes.end(), bytes.begin(), bytes.end());
  });
  if (same != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, same);
    return entries_.front().buffer.data();
  }
  if (entries_.size() < kKept) {
    entries_.emplace_front();
  } else {
    entries_.splice(entries_.begin(), entries_, std::prev(entries_.end()));
  }
  Entry& entry = entries_.front();
  if (entry.buffer.size() < bytes.size()) {
    entry.buffer = Buffer();
    entry.buffer = memory_.allocate(Scope::kWorkspace, bytes.size(), "small arrays");
  }
  entry.bytes.assign(bytes.begin(), bytes.end());
  memory_.storage().upload(entry.buffer.data(), bytes.data(), bytes.size());
  return entry.buffer.data();
}

}  // namespace lomu::cuda

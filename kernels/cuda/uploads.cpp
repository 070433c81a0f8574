#include "kernels/cuda/uploads.h"

#include <algorithm>
#include <iterator>

#include "kernels/error.h"

namespace lomu::cuda {

void Uploads::fit(Buffer& buffer, std::size_t bytes) {
  if (buffer.size() >= bytes) return;
  buffer = Buffer();
  buffer = memory_.allocate(Scope::kWorkspace, bytes, "small arrays");
}

void Uploads::reserve(std::size_t largest) {
  entries_.resize(std::max(entries_.size(), kKept + kPinned));
  for (Entry& entry : entries_) {
    if (entry.buffer.size() >= largest || entry.pins > 0) continue;
    entry.bytes.clear();
    fit(entry.buffer, largest);
  }
  for (Bound& bound : bound_) fit(bound.buffer, largest);
}

Uploads::Binding Uploads::bind(std::span<const std::span<const std::int32_t>> arrays) {
  if (arrays.size() > kBound) throw Error("more arrays are bound than there are places for");
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const std::span<const std::byte> bytes = std::as_bytes(arrays[i]);
    bound_[i].host = bytes.data();
    bound_[i].size = bytes.size();
    if (bytes.empty()) continue;
    fit(bound_[i].buffer, bytes.size());
    memory_.storage().upload(bound_[i].buffer.data(), bytes.data(), bytes.size());
  }
  bound_count_ = arrays.size();
  return Binding(*this);
}

Uploads::Entry& Uploads::entry_to_fill() {
  if (entries_.size() < kKept) return entries_.emplace_front();
  const auto last = std::find_if(entries_.rbegin(), entries_.rend(), [](const Entry& e) { return e.pins == 0; });
  if (last == entries_.rend()) return entries_.emplace_front();
  entries_.splice(entries_.begin(), entries_, std::prev(last.base()));
  return entries_.front();
}

const std::byte* Uploads::find_or_send(std::span<const std::byte> bytes) {
  if (bytes.empty()) return nullptr;
  for (std::size_t i = 0; i < bound_count_; ++i) {
    if (bound_[i].host == bytes.data() && bound_[i].size == bytes.size()) return bound_[i].buffer.data();
  }
  const auto same = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) {
    return std::equal(e.bytes.begin(), e.bytes.end(), bytes.begin(), bytes.end());
  });
  if (same != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, same);
  } else {
    Entry& entry = entry_to_fill();
    fit(entry.buffer, bytes.size());
    entry.bytes.assign(bytes.begin(), bytes.end());
    memory_.storage().upload(entry.buffer.data(), bytes.data(), bytes.size());
  }
  watched_.push_back(&entries_.front());
  return entries_.front().buffer.data();
}

Uploads::Pins::Pins(std::vector<Entry*> entries) : entries_(std::move(entries)) {
  for (Entry* entry : entries_) ++entry->pins;
}

Uploads::Pins::~Pins() {
  for (Entry* entry : entries_) --entry->pins;
}

}  // namespace lomu::cuda

#include "kernels/memory.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/error.h"

namespace lomu {

namespace {

/// Which setting decides how much a scope takes.
const char* setting_for(Scope scope) {
  switch (scope) {
    case Scope::kWeights: return "use dtype bf16, a smaller model, or more memory";
    case Scope::kAdapters:
    case Scope::kOptimizer:
    case Scope::kComm: return "use a lower adapter.rank, or fewer adapter.targets or adapter.layers";
    case Scope::kActivations:
    case Scope::kWorkspace: break;
  }
  return "use fewer tokens at once (training.micro_batch_tokens), or training.recompute: block";
}

}  // namespace

std::string_view name_of(Scope scope) {
  constexpr std::array<std::string_view, kScopes> kNames = {"weights",     "adapters",  "optimizer",
                                                            "activations", "workspace", "comm"};
  return kNames[static_cast<std::size_t>(scope)];
}

std::string in_megabytes(std::size_t bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

Buffer::Buffer(Buffer&& other) noexcept {
  *this = std::move(other);
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(scope_, other.scope_);
  std::swap(memory_, other.memory_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) memory_->release(*this);
}

Buffer Memory::allocate(Scope scope, std::size_t bytes, std::string_view label) {
  Buffer buffer;
  if (bytes == 0) return buffer;
  std::byte* data = storage_.allocate(bytes);
  if (data == nullptr) {
    const StorageRoom room = storage_.room();
    std::string taken = table();
    taken.pop_back();  // its last line ends with the message
    throw MemoryError(fmt::format("out of memory{}: {} for {} ({}); {} of {} are free, and this rank has taken\n{}",
                                  storage_.on_host() ? "" : " on the GPU", in_megabytes(bytes), label, name_of(scope),
                                  in_megabytes(room.free), in_megabytes(room.total), taken),
                      {}, setting_for(scope));
  }
  buffer.data_ = data;
  buffer.size_ = bytes;
  buffer.scope_ = scope;
  buffer.memory_ = this;
  add(scope, bytes);
  return buffer;
}

void Memory::note_external(Scope scope, std::size_t bytes) {
  add(scope, bytes);
}

std::size_t Memory::current_total() const {
  std::size_t total = 0;
  for (const auto& c : current_) total += c;
  return total;
}

std::string Memory::table() const {
  std::string text;
  for (std::size_t i = 0; i < kScopes; ++i) {
    text += fmt::format("  {:<12} {:>12} now {:>12} peak\n", name_of(static_cast<Scope>(i)), in_megabytes(current_[i]),
                        in_megabytes(peak_[i]));
  }
  return text;
}

void Memory::add(Scope scope, std::size_t bytes) {
  const auto i = static_cast<std::size_t>(scope);
  const std::size_t now = current_[i] += bytes;
  std::size_t seen = peak_[i];
  while (seen < now && !peak_[i].compare_exchange_weak(seen, now)) {
  }
}

void Memory::release(const Buffer& buffer) noexcept {
  storage_.release(buffer.data_, buffer.size_);
  current_[static_cast<std::size_t>(buffer.scope_)] -= buffer.size_;
}

}  // namespace lomu

#include "kernels/memory.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/error.h"

namespace lomu {

std::string_view name_of(Scope scope) {
  constexpr std::array<std::string_view, kScopes> kNames = {"weights",     "adapters",  "optimizer",
                                                            "activations", "workspace", "comm"};
  return kNames[static_cast<std::size_t>(scope)];
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
    throw Error(fmt::format("out of memory: {} bytes for {} ({})\n{}", bytes, label, name_of(scope), table()), {},
                "use fewer tokens a micro-batch (training.micro_batch_tokens), a lower rank, or dtype bf16");
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
    text += fmt::format("  {:<12} {:>9.1f} MB now {:>9.1f} MB peak\n", name_of(static_cast<Scope>(i)),
                        static_cast<double>(current_[i]) / 1e6, static_cast<double>(peak_[i]) / 1e6);
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

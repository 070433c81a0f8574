// Read-only bytes held once per host: the base weights. The local leader fills an anonymous memory file and the other
// ranks of the host map it. The memory belongs to the processes that map it and to nothing else: no file system entry,
// so nothing is left behind however they end. It is not a channel: after create() nobody can write.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "comm/communicator.h"

namespace lomu {

class SharedRegion {
 public:
  /// Writes the whole region. Runs on the local leader, and on every rank that could not map the leader's memory.
  using Fill = std::function<void(std::span<std::byte>)>;

  /// Collective over all ranks, with the same `bytes` on each. `name` appears in messages and in /proc/PID/maps.
  /// The region starts on a multiple of 2 MiB. An error of `fill` on any rank, and memory that does not suffice, become
  /// the same AgreedError on every rank (with one rank: the error itself). A rank that cannot reach the leader's memory
  /// (another container, no memfd) gets a private copy: shared() is false and note() says why.
  static SharedRegion create(Communicator& comm, std::size_t bytes, std::string_view name, const Fill& fill);

  SharedRegion() = default;
  SharedRegion(SharedRegion&& other) noexcept;
  SharedRegion& operator=(SharedRegion&& other) noexcept;
  ~SharedRegion();

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  /// Whether the ranks of this host hold one copy. Also true for the only rank of a host.
  [[nodiscard]] bool shared() const noexcept { return note_.empty(); }
  /// Why this rank has a copy of its own; empty if it has not.
  [[nodiscard]] const std::string& note() const noexcept { return note_; }

 private:
  class Mapping;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_ = 0;
  std::string note_;
};

}  // namespace lomu

// A TCP socket with deadlines, for ranks that talk without MPI: connect, listen, and whole small messages. The streams
// of a running job are tcp_communicator.cpp's.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace lomu {

using Deadline = std::chrono::steady_clock::time_point;

/// Where a listener can be reached.
struct Address {
  std::string host;  ///< a name or a number: "node07", "10.0.0.7", "fe80::1"
  int port = 0;
  /// "host:port", with brackets around a host that holds colons.
  [[nodiscard]] std::string text() const;
  /// The reverse. Throws UsageError, naming `where`, for anything else or a port outside 1 to 65535.
  static Address parse(std::string_view text, std::string_view where);
};

/// Owns a socket that never blocks: every wait has a deadline.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) noexcept : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  /// Listens at `port` (0: any free one) of all addresses of this host, IPv6 and IPv4. Throws CommError.
  static Socket listen(int port);
  /// A connection, or nothing if nobody answers there before the deadline or at once. Throws CommError when the host
  /// name is not known.
  static std::optional<Socket> connect(const Address& to, Deadline until);

  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] explicit operator bool() const noexcept { return descriptor_ >= 0; }
  /// Of a listener: the next caller, if one came before the deadline.
  [[nodiscard]] std::optional<Socket> accept(Deadline until) const;
  /// The port of this end, and the host number of this or the other end.
  [[nodiscard]] int local_port() const;
  [[nodiscard]] std::string local_host() const;
  [[nodiscard]] std::string peer_host() const;

  /// All bytes or false: the other side has ended, or the deadline passed.
  [[nodiscard]] bool write_all(std::span<const std::byte> bytes, Deadline until) const;
  [[nodiscard]] bool read_all(std::span<std::byte> bytes, Deadline until) const;

 private:
  int descriptor_ = -1;
};

}  // namespace lomu

#include "comm/socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "kernels/error.h"

namespace lomu {
namespace {

constexpr int kBacklog = 4096;  // the kernel lowers it to what it allows

int milliseconds_to(Deadline until) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000));
}

/// Whether one of `events` (or an error, which the next call tells) came before the deadline.
bool wait_for(int descriptor, short events, Deadline until) {
  while (true) {
    pollfd one{descriptor, events, 0};
    const int found = ::poll(&one, 1, milliseconds_to(until));
    if (found > 0) return true;
    if (found == 0 || errno != EINTR) return false;
  }
}

void set_option(int descriptor, int level, int option, int value) {
  // What a system refuses it does without: these make a connection better, not right.
  (void)::setsockopt(descriptor, level, option, &value, sizeof value);
}

// Small messages leave at once; a host that lost its power is noticed in about 20 s although it never said goodbye.
void tune(int descriptor) {
  set_option(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set_option(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set_option(descriptor, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, 20'000);
}

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

AddressList look_up(const Address& address) {
  addrinfo wanted{};
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port);
  const int status = ::getaddrinfo(address.host.c_str(), port.c_str(), &wanted, &found);
  if (status != 0) {
    throw CommError(fmt::format("the host '{}' is not known: {}", address.host, ::gai_strerror(status)), address.text(),
                    "give a name or number that this machine can look up");
  }
  return {found, &::freeaddrinfo};
}

std::string number_of(const sockaddr_storage& address, socklen_t length) {
  char host[NI_MAXHOST] = {};
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, nullptr, 0,
                    NI_NUMERICHOST) != 0) {
    return {};
  }
  // An IPv4 caller of a listener for both: by its own name it can also be reached from hosts without IPv6.
  constexpr std::string_view kMapped = "::ffff:";
  const std::string_view text(host);
  return std::string(text.starts_with(kMapped) ? text.substr(kMapped.size()) : text);
}

Socket open_listener(int family, int port) {
  Socket listener(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener) return listener;
  set_option(listener.descriptor(), SOL_SOCKET, SO_REUSEADDR, 1);
  sockaddr_storage any{};
  socklen_t length = sizeof(sockaddr_in);
  if (family == AF_INET6) {
    set_option(listener.descriptor(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
    auto& address = reinterpret_cast<sockaddr_in6&>(any);
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_any;
    address.sin6_port = htons(static_cast<std::uint16_t>(port));
    length = sizeof address;
  } else {
    auto& address = reinterpret_cast<sockaddr_in&>(any);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
  }
  if (::bind(listener.descriptor(), reinterpret_cast<const sockaddr*>(&any), length) != 0 ||
      ::listen(listener.descriptor(), kBacklog) != 0) {
    const int error = errno;
    listener = Socket();
    errno = error;
  }
  return listener;
}

}  // namespace

std::string Address::text() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

Address Address::parse(std::string_view text, std::string_view where) {
  const std::size_t colon = text.rfind(':');
  Address address;
  if (colon != std::string_view::npos) {
    std::string_view host = text.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    const std::string_view port = text.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
    if (error == std::errc() && end == port.data() + port.size() && address.port >= 1 && address.port <= 65535) {
      address.host = host;
    }
  }
  if (address.host.empty()) {
    throw UsageError(fmt::format("'{}' is not host:port", text), std::string(where),
                     "for example node07:29500, with a port from 1 to 65535");
  }
  return address;
}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Socket::~Socket() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Socket Socket::listen(int port) {
  Socket listener = open_listener(AF_INET6, port);
  if (!listener && errno != EADDRINUSE && errno != EACCES) listener = open_listener(AF_INET, port);
  if (listener) return listener;
  throw CommError(fmt::format("cannot listen at port {}: {}", port, std::strerror(errno)), {},
                  "choose a free port above 1023, or let the ranks find each other by a file: LOMU_RENDEZVOUS=path");
}

std::optional<Socket> Socket::connect(const Address& to, Deadline until) {
  const AddressList addresses = look_up(to);
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    Socket socket(::socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) continue;
    tune(socket.descriptor());
    if (::connect(socket.descriptor(), a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) continue;
    if (!wait_for(socket.descriptor(), POLLOUT, until)) continue;
    int error = 0;
    socklen_t length = sizeof error;
    if (::getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) continue;
    // Where nobody listens yet, the kernel may choose the wanted port for this end and connect it to itself.
    if (socket.local_port() == to.port && socket.local_host() == socket.peer_host()) continue;
    return socket;
  }
  return std::nullopt;
}

std::optional<Socket> Socket::accept(Deadline until) const {
  if (!wait_for(descriptor_, POLLIN, until)) return std::nullopt;
  Socket caller(::accept4(descriptor_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!caller) return std::nullopt;
  tune(caller.descriptor());
  return caller;
}

int Socket::local_port() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

std::string Socket::local_host() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return number_of(address, length);
}

std::string Socket::peer_host() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getpeername(descriptor_, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return number_of(address, length);
}

bool Socket::write_all(std::span<const std::byte> bytes, Deadline until) const {
  while (!bytes.empty()) {
    const ssize_t done = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (done > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(descriptor_, POLLOUT, until)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

bool Socket::read_all(std::span<std::byte> bytes, Deadline until) const {
  while (!bytes.empty()) {
    const ssize_t done = ::recv(descriptor_, bytes.data(), bytes.size(), 0);
    if (done > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    } else if (done == 0) {
      return false;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(descriptor_, POLLIN, until)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace lomu

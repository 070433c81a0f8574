#include "comm/tcp_communicator.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>

namespace lomu {
namespace {

using std::chrono::steady_clock;

// Channels of frames that are no message of an operation.
constexpr std::uint32_t kGoodbye = 0xffff0001u;
constexpr std::uint32_t kAbort = 0xffff0002u;

// Messages that come before this rank asks for them are kept; more than this from one rank is a fault.
constexpr std::size_t kMostEarly = std::size_t{4} << 30;
constexpr std::size_t kLongestReason = 4096;
// A rank that ends waits this long for the others to take its last words.
constexpr auto kFarewell = std::chrono::milliseconds(500);
// A rank that hears why the job ends does so without a word of its own. Who notices that first gives the reason, which
// comes on another stream, this long.
constexpr auto kOnTheWay = std::chrono::milliseconds(100);
// When several ranks notice that another has died, rank k lets those below it report first.
constexpr auto kStagger = std::chrono::milliseconds(20);
constexpr int kMostStagger = 25;

struct Frame {
  std::uint32_t channel = 0;
  std::int32_t exit = 0;  ///< of kAbort
  std::uint64_t bytes = 0;
};
static_assert(sizeof(Frame) == 16);

struct Early {
  std::uint32_t channel = 0;
  std::vector<std::byte> bytes;
};

/// The stream to one rank: what is being read, and what came before it was asked for.
struct Peer {
  Socket stream;
  Frame frame;
  std::size_t frame_bytes = 0;    ///< of `frame` read so far
  std::byte* into = nullptr;      ///< where the rest of the message goes, once its frame is complete
  std::size_t left = 0;           ///< bytes of it to come
  bool into_place = false;        ///< directly to the receiver's memory
  Early early;                    ///< the message being read, unless into_place
  std::deque<Early> early_all;    ///< complete ones
  std::size_t early_bytes = 0;    ///< of all early messages
  std::deque<Incoming> expected;  ///< by the operation under way, in order
  std::deque<Outgoing> outgoing;
  std::size_t sent = 0;  ///< bytes of the first outgoing one, its frame included
  bool left_job = false;
  bool ended = false;  ///< its stream is closed
};

class TcpCommunicator final : public Communicator {
 public:
  TcpCommunicator(Place place, Peers peers, const CommOptions& options)
      : Communicator(place, options), exceptions_at_start_(std::uncaught_exceptions()) {
    peers_.resize(peers.streams.size());
    for (std::size_t i = 0; i < peers_.size(); ++i) peers_[i].stream = std::move(peers.streams[i]);
  }

  ~TcpCommunicator() override {
    const bool by_exception = std::uncaught_exceptions() > exceptions_at_start_;
    say_goodbye(by_exception ? kAbort : kGoodbye, "an error nobody handled ended this rank", 1);
  }

  static Place place_of(int rank, const std::vector<std::uint64_t>& hosts) {
    Place place{rank, static_cast<int>(hosts.size()), 0, 0, -1};
    for (int other = 0; other < place.size; ++other) {
      if (hosts[static_cast<std::size_t>(other)] != hosts[static_cast<std::size_t>(rank)]) continue;
      if (place.local_leader < 0) place.local_leader = other;
      if (other < rank) ++place.local_rank;
      ++place.local_size;
    }
    return place;
  }

  std::string_view backend() const noexcept override { return "tcp"; }

  void abort(std::string_view reason, int exit_code) override {
    std::fflush(nullptr);
    if (!heard_abort_) let_others_report();
    if (heard_abort_) std::_Exit(*heard_abort_);  // a rank has reported already
    report(reason);
    say_goodbye(kAbort, reason, exit_code);
    std::_Exit(exit_code);
  }

 protected:
  void run_exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const Operation& operation) override {
    std::deque<Outgoing> to_self;
    for (const Outgoing& message : sends) {
      (message.to == rank() ? to_self : peer(message.to).outgoing).push_back(message);
    }
    for (const Incoming& message : receives) {
      if (message.from == rank()) {
        take_own(to_self, message, operation);
      } else {
        peer(message.from).expected.push_back(message);
      }
    }
    if (!to_self.empty()) throw CommError(fmt::format("{}: a message to oneself is not received", describe(operation)));
    for (Peer& p : peers_) match_early(p, operation);
    while (is_open(operation)) move_some(operation);
  }

 private:
  [[nodiscard]] Peer& peer(int other) { return peers_[static_cast<std::size_t>(other)]; }
  [[nodiscard]] int number_of(const Peer& p) const { return static_cast<int>(&p - peers_.data()); }

  void take_own(std::deque<Outgoing>& to_self, const Incoming& message, const Operation& operation) const {
    if (to_self.empty() || to_self.front().bytes != message.bytes) {
      throw CommError(fmt::format("{}: messages to oneself and their receives differ", describe(operation)));
    }
    if (message.bytes > 0) std::memmove(message.data, to_self.front().data, message.bytes);
    to_self.pop_front();
  }

  // Messages of this channel that came early go first, for they were sent first.
  void match_early(Peer& p, const Operation& operation) {
    for (auto at = p.early_all.begin(); !p.expected.empty() && at != p.early_all.end();) {
      if (at->channel != static_cast<std::uint32_t>(operation.channel)) {
        ++at;
        continue;
      }
      check_size(p, at->bytes.size(), operation);
      if (!at->bytes.empty()) std::memcpy(p.expected.front().data, at->bytes.data(), at->bytes.size());
      p.expected.pop_front();
      p.early_bytes -= at->bytes.size();
      at = p.early_all.erase(at);
    }
  }

  void check_size(const Peer& p, std::size_t bytes, const Operation& operation) const {
    if (p.expected.front().bytes == bytes) return;
    throw CommError(fmt::format("rank {} sends {} bytes but rank {} expects {} in {}", number_of(p), bytes, rank(),
                                p.expected.front().bytes, describe(operation)));
  }

  // Whether the operation needs any stream still; a needed one that can give no more is an error.
  [[nodiscard]] bool is_open(const Operation& operation) const {
    bool open = false;
    for (const Peer& p : peers_) {
      if (p.expected.empty() && p.outgoing.empty()) continue;
      if (p.ended) throw ended_error(p, operation);
      open = true;
    }
    return open;
  }

  [[nodiscard]] CommError ended_error(const Peer& p, const Operation& operation) const {
    if (p.left_job) {
      return CommError(
          fmt::format("rank {} has ended while rank {} waits for it in {}", number_of(p), rank(), describe(operation)));
    }
    return CommError(fmt::format("rank {} has ended without a word while rank {} was in {}", number_of(p), rank(),
                                 describe(operation)),
                     {}, "it was killed or crashed: see its own output, and the system's log");
  }

  void move_some(const Operation& operation) {
    polls_.clear();
    for (const Peer& p : peers_) {
      short events = 0;
      if (!p.ended && p.stream) {
        // Who is not asked for anything is only watched for its end.
        events = POLLRDHUP;
        if (!p.expected.empty()) events |= POLLIN;
        if (!p.outgoing.empty()) events |= POLLOUT;
      }
      polls_.push_back({events != 0 ? p.stream.descriptor() : -1, events, 0});
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(operation.until - steady_clock::now());
    if (left.count() <= 0) throw deadline_error(operation, waiting_for());
    const int wait = static_cast<int>(std::min<std::int64_t>(left.count(), 1'000'000));
    const int found = ::poll(polls_.data(), polls_.size(), wait);
    if (found < 0 && errno != EINTR) throw CommError(fmt::format("poll: {}", std::strerror(errno)));
    if (found <= 0) return;
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      Peer& p = peers_[i];
      const bool ending = (polls_[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
      if ((polls_[i].revents & POLLOUT) != 0) send_some(p, operation);
      if (ending || (polls_[i].revents & POLLIN) != 0) receive(p, operation, ending);
      if (p.ended && !p.left_job) throw ended_error(p, operation);
    }
  }

  [[nodiscard]] std::string waiting_for() const {
    std::vector<int> ranks;
    for (const Peer& p : peers_) {
      if (!p.expected.empty() || !p.outgoing.empty()) ranks.push_back(number_of(p));
    }
    return fmt::format("rank{} {}", ranks.size() > 1 ? "s" : "", fmt::join(ranks, ", "));
  }

  // As much as the stream takes. An error shows itself when the stream is read.
  static void send_some(Peer& p, const Operation& operation) {
    while (!p.outgoing.empty()) {
      const Outgoing& message = p.outgoing.front();
      const Frame frame{static_cast<std::uint32_t>(operation.channel), 0, message.bytes};
      std::array<iovec, 2> parts{};
      std::size_t count = 0;
      if (p.sent < sizeof frame) {
        const auto* at = reinterpret_cast<const std::byte*>(&frame) + p.sent;
        parts[count++] = {const_cast<std::byte*>(at), sizeof frame - p.sent};
      }
      const std::size_t of_data = p.sent < sizeof frame ? 0 : p.sent - sizeof frame;
      if (message.bytes > of_data) {
        const auto* at = static_cast<const std::byte*>(message.data) + of_data;
        parts[count++] = {const_cast<std::byte*>(at), message.bytes - of_data};
      }
      msghdr header{};
      header.msg_iov = parts.data();
      header.msg_iovlen = count;
      const ssize_t done = ::sendmsg(p.stream.descriptor(), &header, MSG_NOSIGNAL);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return;
      p.sent += static_cast<std::size_t>(done);
      if (p.sent < sizeof frame + message.bytes) continue;
      p.sent = 0;
      p.outgoing.pop_front();
    }
  }

  // Reads what is there: up to what is expected, or, of a rank that has ended, everything, which is then no more than
  // what the system has kept of it.
  void receive(Peer& p, const Operation& operation, bool everything) {
    while (everything || !p.expected.empty()) {
      const bool in_frame = p.frame_bytes < sizeof(Frame);
      std::byte* const into = in_frame ? reinterpret_cast<std::byte*>(&p.frame) + p.frame_bytes : p.into;
      const std::size_t wanted = in_frame ? sizeof(Frame) - p.frame_bytes : p.left;
      const ssize_t got = ::recv(p.stream.descriptor(), into, wanted, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (got <= 0) {
        p.ended = true;
        return;
      }
      if (in_frame) {
        p.frame_bytes += static_cast<std::size_t>(got);
        if (p.frame_bytes == sizeof(Frame)) start_message(p, operation);
      } else {
        p.into += got;
        p.left -= static_cast<std::size_t>(got);
      }
      if (p.frame_bytes == sizeof(Frame) && p.left == 0) finish_message(p, operation);
    }
  }

  void start_message(Peer& p, const Operation& operation) {
    const bool wanted = p.frame.channel == static_cast<std::uint32_t>(operation.channel) && !p.expected.empty();
    p.into_place = wanted;
    p.left = p.frame.bytes;
    if (wanted) {
      check_size(p, p.frame.bytes, operation);
      p.into = static_cast<std::byte*>(p.expected.front().data);
      return;
    }
    const bool known = p.frame.channel == kGoodbye || p.frame.channel == kAbort || p.frame.channel < kTags + 8u;
    if (!known || p.frame.bytes > kMostEarly - std::min(p.early_bytes, kMostEarly)) {
      throw CommError(fmt::format("rank {} sends {} bytes that nobody asked for", number_of(p), p.frame.bytes),
                      describe(operation), "are all ranks started from the same build?");
    }
    p.early.channel = p.frame.channel;
    p.early.bytes.resize(p.frame.bytes);
    p.early_bytes += p.frame.bytes;
    p.into = p.early.bytes.data();
  }

  void finish_message(Peer& p, const Operation& operation) {
    p.frame_bytes = 0;
    if (p.into_place) {
      p.expected.pop_front();
      return;
    }
    if (p.frame.channel == kGoodbye) {
      p.left_job = true;
      return;
    }
    if (p.frame.channel == kAbort) {
      heard_abort_ = p.frame.exit;
      const std::string_view text(reinterpret_cast<const char*>(p.early.bytes.data()),
                                  std::min(p.early.bytes.size(), kLongestReason));
      throw CommError(fmt::format("rank {} ended the job while rank {} was in {}: {}", number_of(p), rank(),
                                  describe(operation), text));
    }
    p.early_all.push_back(std::move(p.early));
    p.early = {};
    match_early(p, operation);
  }

  // Another rank that saw the same may have reported it: then there is no need for a second message.
  void let_others_report() {
    const auto until = steady_clock::now() + kOnTheWay + kStagger * std::min(rank(), kMostStagger);
    const Operation nothing{"abort", {}, kTags + 7, until};
    while (!heard_abort_ && steady_clock::now() < until) {
      for (Peer& p : peers_) {
        if (!p.stream || p.ended || heard_abort_) continue;
        try {
          receive(p, nothing, true);
        } catch (const CommError&) {
          p.ended = true;  // its abort, which heard_abort_ tells, or nonsense, which no longer matters
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  // Tells every rank, then waits briefly until they have closed too: to close a stream with unread bytes would take
  // from the others what they have not read yet.
  void say_goodbye(std::uint32_t channel, std::string_view text, int exit_code) noexcept {
    const auto until = steady_clock::now() + kFarewell;
    const std::string_view said = channel == kAbort ? text.substr(0, kLongestReason) : std::string_view();
    for (Peer& p : peers_) {
      // In the middle of a message a frame would be taken for its content: then the end of the stream must say it.
      if (!p.stream || p.ended || p.sent > 0) continue;
      const Frame frame{channel, exit_code, said.size()};
      (void)(p.stream.write_all(std::as_bytes(std::span(&frame, 1)), until) &&
             p.stream.write_all(std::as_bytes(std::span(said)), until));
      ::shutdown(p.stream.descriptor(), SHUT_WR);
    }
    if (channel != kAbort) return;
    std::array<std::byte, 4096> unread;
    for (const Peer& p : peers_) {
      while (p.stream && !p.ended && p.stream.read_all(unread, until)) {
      }
    }
  }

  std::vector<Peer> peers_;
  std::vector<pollfd> polls_;
  std::optional<int> heard_abort_;  ///< the exit code with which another rank ended the job
  int exceptions_at_start_;
};

}  // namespace

std::unique_ptr<Communicator> make_tcp_communicator(int rank, int size, const MeetingPlace& place,
                                                    const CommOptions& options) {
  if (size < 2) return make_self_communicator(options);
  Peers peers = meet(rank, size, place, options);
  const auto own_place = TcpCommunicator::place_of(rank, peers.hosts);
  return std::make_unique<TcpCommunicator>(own_place, std::move(peers), options);
}

}  // namespace lomu

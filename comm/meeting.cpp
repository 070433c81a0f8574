#include "comm/meeting.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <thread>

#include "comm/meeting_file.h"

namespace lomu {
namespace {

using std::chrono::steady_clock;

constexpr std::uint64_t kMagic = 0x316b6e61'72756d6fu;  // "omurank1": another protocol is told apart at once
constexpr auto kGreeting = std::chrono::seconds(5);     // how long a caller may take for its first words
constexpr auto kPause = std::chrono::milliseconds(50);  // between attempts to reach rank 0
constexpr auto kOneAttempt = std::chrono::seconds(3);
constexpr std::size_t kLongestRefusal = 512;

// A rank's first words to another.
struct Hello {
  std::uint64_t magic = kMagic;
  std::uint64_t job = 0;      ///< the number in the meeting file; 0 without one
  std::uint64_t process = 0;  ///< drawn at random: tells a second attempt from a second process
  std::uint64_t host = 0;
  std::int32_t rank = 0;
  std::int32_t size = 0;
  std::int32_t port = 0;  ///< where it listens itself
  std::int32_t unused = 0;
};

// Rank 0's answer: at once kWait, and when all are there kComplete and the list, or kRefused and a text.
struct Answer {
  enum Kind : std::int32_t { kWait = 1, kComplete, kRefused };
  std::uint64_t magic = kMagic;
  std::uint64_t job = 0;
  std::int32_t kind = kWait;
  std::int32_t length = 0;  ///< of the text that follows
};

struct Entry {
  std::array<char, 64> address{};  ///< empty: on rank 0's host, reach it as you reached rank 0
  std::uint64_t host = 0;
  std::int32_t port = 0;
  std::int32_t unused = 0;
};

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <class T>
std::span<std::byte> writable(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

std::uint64_t random_number() {
  std::random_device device;
  return (std::uint64_t{device()} << 32 | device()) | 1u;
}

CommError too_late(const CommOptions& options, std::string_view waiting_for, const MeetingPlace& place) {
  return CommError(
      fmt::format("waited {:g} s for {}", std::chrono::duration<double>(options.deadline).count(), waiting_for),
      place.text(),
      "start all ranks of the job, on hosts that reach each other; LOMU_COMM_DEADLINE_S sets the limit in seconds");
}

// ---- rank 0 --------------------------------------------------------------------------------------------------------

class Host {
 public:
  Host(int size, const MeetingPlace& place, const CommOptions& options)
      : size_(size), place_(place), options_(options), until_(steady_clock::now() + options.deadline) {}

  Peers receive_all() {
    const Socket listener = Socket::listen(place_.address ? place_.address->port : 0);
    std::optional<NoticeFile> file;
    if (!place_.address) {
      job_ = random_number();
      file.emplace(place_.file, Notice{job_, host_number(), listener.local_port(), own_addresses()});
    }
    const auto ranks = static_cast<std::size_t>(size_);
    peers_.streams.resize(ranks);
    peers_.hosts.resize(ranks);
    peers_.hosts[0] = host_number();
    entries_.resize(ranks);
    entries_[0].host = peers_.hosts[0];
    processes_.resize(ranks);
    int missing = size_ - 1;
    while (missing > 0) {
      std::optional<Socket> caller = listener.accept(until_);
      if (steady_clock::now() >= until_) throw too_late(options_, missing_ranks(), place_);
      if (caller && admit(std::move(*caller))) --missing;
    }
    const Answer complete{kMagic, job_, Answer::kComplete, 0};
    for (int rank = 1; rank < size_; ++rank) {
      const Socket& stream = peers_.streams[static_cast<std::size_t>(rank)];
      if (!stream.write_all(bytes_of(complete), until_) ||
          !stream.write_all(std::as_bytes(std::span(entries_)), until_)) {
        throw CommError(fmt::format("rank {} ended while the ranks met", rank), place_.text());
      }
    }
    return std::move(peers_);
  }

 private:
  // Whether a rank that was missing has come.
  bool admit(Socket caller) {
    Hello hello;
    if (!caller.read_all(writable(hello), std::min(until_, steady_clock::now() + kGreeting))) return false;
    if (hello.magic != kMagic || hello.job != job_) return false;  // no rank of this job
    if (hello.size != size_ || hello.rank < 1 || hello.rank >= size_) {
      refuse(caller, fmt::format("a process says to be rank {} of {}, but rank 0 was started with {} ranks", hello.rank,
                                 hello.size, size_));
    }
    const auto rank = static_cast<std::size_t>(hello.rank);
    const bool again = processes_[rank] != 0;
    if (again && processes_[rank] != hello.process) {
      refuse(caller, fmt::format("two processes say to be rank {}", hello.rank));
    }
    const Answer wait{kMagic, job_, Answer::kWait, 0};
    if (!caller.write_all(bytes_of(wait), until_)) return false;
    const std::string address = caller.peer_host();
    Entry& entry = entries_[rank];
    if (!is_loopback(address) && address.size() < entry.address.size()) {
      std::copy(address.begin(), address.end(), entry.address.begin());
    }
    entry.host = hello.host;
    entry.port = hello.port;
    peers_.hosts[rank] = hello.host;
    peers_.streams[rank] = std::move(caller);
    processes_[rank] = hello.process;
    return !again;
  }

  // Ends the meeting for everybody.
  [[noreturn]] void refuse(const Socket& caller, const std::string& why) {
    const Answer refused{kMagic, job_, Answer::kRefused, static_cast<std::int32_t>(why.size())};
    const auto tell = [&](const Socket& socket) {
      if (!socket) return;
      const auto soon = steady_clock::now() + std::chrono::seconds(1);
      (void)(socket.write_all(bytes_of(refused), soon) && socket.write_all(std::as_bytes(std::span(why)), soon));
    };
    tell(caller);
    for (const Socket& stream : peers_.streams) tell(stream);
    throw CommError(why, place_.text(), "start the ranks of one job with one world size and each rank once");
  }

  [[nodiscard]] std::string missing_ranks() const {
    std::vector<int> missing;
    for (int rank = 1; rank < size_; ++rank) {
      if (!peers_.streams[static_cast<std::size_t>(rank)]) missing.push_back(rank);
    }
    return fmt::format("rank{} {} of {} to come", missing.size() > 1 ? "s" : "", fmt::join(missing, ", "), size_);
  }

  int size_;
  const MeetingPlace& place_;
  const CommOptions& options_;
  Deadline until_;
  std::uint64_t job_ = 0;
  Peers peers_;
  std::vector<Entry> entries_;
  std::vector<std::uint64_t> processes_;
};

// ---- the others ----------------------------------------------------------------------------------------------------

class Guest {
 public:
  Guest(int rank, int size, const MeetingPlace& place, const CommOptions& options)
      : place_(place),
        options_(options),
        until_(steady_clock::now() + options.deadline),
        listener_(Socket::listen(0)),
        peers_{std::vector<Socket>(static_cast<std::size_t>(size)), {}} {
    hello_.process = random_number();
    hello_.host = host_number();
    hello_.rank = rank;
    hello_.size = size;
    hello_.port = listener_.local_port();
  }

  Peers join() {
    Socket first = reach_rank_0();
    const std::vector<Entry> entries = wait_for_list(first);
    for (const Entry& entry : entries) peers_.hosts.push_back(entry.host);
    // A rank calls those below it and is called by those above. All listen since before they came to rank 0, so no
    // order of calling and answering can block.
    for (int rank = 1; rank < hello_.rank; ++rank) call(rank, entries[static_cast<std::size_t>(rank)], first);
    peers_.streams[0] = std::move(first);
    for (int missing = hello_.size - 1 - hello_.rank; missing > 0;) missing -= answer() ? 1 : 0;
    return std::move(peers_);
  }

 private:
  Socket reach_rank_0() {
    while (true) {
      for (const Address& address : addresses_of_rank_0()) {
        const auto soon = std::min(until_, steady_clock::now() + kOneAttempt);
        std::optional<Socket> socket;
        try {
          socket = Socket::connect(address, soon);
        } catch (const CommError&) {
          if (place_.address) throw;  // of the names in a file some other one may serve
        }
        if (socket && greet(*socket)) return std::move(*socket);
      }
      if (steady_clock::now() + kPause >= until_) throw too_late(options_, "rank 0 to listen", place_);
      std::this_thread::sleep_for(kPause);
    }
  }

  // The file is read anew for each attempt: rank 0 may not have replaced that of an earlier job yet.
  std::vector<Address> addresses_of_rank_0() {
    if (place_.address) return {*place_.address};
    const std::optional<Notice> notice = read_notice(place_.file);
    if (!notice || notice->port < 1 || notice->port > 65535) return {};
    hello_.job = notice->job;
    if (notice->host == hello_.host) return {{"127.0.0.1", notice->port}, {"::1", notice->port}};
    std::vector<Address> all;
    for (const std::string& host : notice->addresses) all.push_back({host, notice->port});
    return all;
  }

  bool greet(const Socket& socket) {
    const auto soon = std::min(until_, steady_clock::now() + kGreeting);
    Answer answer;
    if (!socket.write_all(bytes_of(hello_), soon) || !socket.read_all(writable(answer), soon)) return false;
    if (answer.magic != kMagic || answer.job != hello_.job) return false;
    if (answer.kind == Answer::kRefused) throw refusal(socket, answer);
    return true;
  }

  std::vector<Entry> wait_for_list(const Socket& rank_0) {
    Answer answer;
    std::vector<Entry> entries(static_cast<std::size_t>(hello_.size));
    const bool heard = rank_0.read_all(writable(answer), until_);
    if (heard && answer.kind == Answer::kRefused) throw refusal(rank_0, answer);
    if (heard && rank_0.read_all(std::as_writable_bytes(std::span(entries)), until_)) return entries;
    if (steady_clock::now() >= until_) throw too_late(options_, "the other ranks to come", place_);
    throw CommError("rank 0 ended while the ranks met", place_.text());
  }

  CommError refusal(const Socket& socket, const Answer& answer) const {
    std::string why(std::clamp<std::size_t>(static_cast<std::size_t>(std::max(answer.length, 0)), 0, kLongestRefusal),
                    ' ');
    if (!socket.read_all(std::as_writable_bytes(std::span(why)), steady_clock::now() + kGreeting)) why = "refused";
    return CommError(why, place_.text(), "start the ranks of one job with one world size and each rank once");
  }

  void call(int rank, const Entry& entry, const Socket& rank_0) {
    std::string host(entry.address.data(), ::strnlen(entry.address.data(), entry.address.size()));
    if (host.empty()) host = rank_0.peer_host();
    const Address address{host, entry.port};
    std::optional<Socket> socket = Socket::connect(address, until_);
    if (!socket || !socket->write_all(bytes_of(hello_), until_)) {
      throw CommError(fmt::format("rank {} cannot reach rank {}", hello_.rank, rank), address.text(),
                      "the rank has ended, or a firewall is between the hosts");
    }
    peers_.streams[static_cast<std::size_t>(rank)] = std::move(*socket);
  }

  bool answer() {
    std::optional<Socket> found = listener_.accept(until_);
    if (steady_clock::now() >= until_) throw too_late(options_, "the other ranks to connect", place_);
    if (!found) return false;
    Hello hello;
    if (!found->read_all(writable(hello), std::min(until_, steady_clock::now() + kGreeting))) return false;
    const bool expected = hello.magic == kMagic && hello.job == hello_.job && hello.size == hello_.size &&
                          hello.rank > hello_.rank && hello.rank < hello_.size &&
                          !peers_.streams[static_cast<std::size_t>(hello.rank)];
    if (!expected) return false;
    peers_.streams[static_cast<std::size_t>(hello.rank)] = std::move(*found);
    return true;
  }

  const MeetingPlace& place_;
  const CommOptions& options_;
  Deadline until_;
  Socket listener_;
  Hello hello_;
  Peers peers_;
};

}  // namespace

std::string MeetingPlace::text() const {
  return address ? address->text() : file.string();
}

Peers meet(int rank, int size, const MeetingPlace& place, const CommOptions& options) {
  return rank == 0 ? Host(size, place, options).receive_all() : Guest(rank, size, place, options).join();
}

}  // namespace lomu

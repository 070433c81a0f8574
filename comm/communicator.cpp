#include "comm/communicator.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

namespace lomu {
namespace {

// Channels above the tags of send and recv.
enum Channel : int {
  kBarrier = Communicator::kTags,
  kBroadcast,
  kAllGather,
  kAllGatherv,
};

// A year: a longer deadline is a mistake or none at all, and clock arithmetic must not overflow.
constexpr std::chrono::milliseconds kLongestWait = std::chrono::hours(365 * 24);

// A message about a failure is for people: longer than this, it is cut.
constexpr std::size_t kLongestText = 1 << 14;

// What each rank tells the others before any text travels.
struct Verdict {
  std::uint32_t failed = 0;
  std::int32_t exit = 0;
  std::uint32_t what = 0, where = 0, hint = 0;  ///< lengths
  std::uint32_t unused = 0;
  std::uint64_t fingerprint = 0;  ///< equal texts have equal fingerprints
};
static_assert(std::is_trivially_copyable_v<Verdict>);

// FNV-1a, 64 bits.
std::uint64_t fingerprint_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

std::string text_of(const Failure& failure) {
  return failure.what + failure.where + failure.hint;
}

template <class T>
std::vector<T> gather_values(Communicator& comm, std::span<const T> mine, std::string_view what) {
  std::vector<T> all(mine.size() * static_cast<std::size_t>(comm.size()));
  comm.all_gather(std::as_bytes(mine), std::as_writable_bytes(std::span(all)), what);
  return all;
}

// One system call, past stdio: ranks share a terminal, and the process may be about to be killed.
void write_to_stderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

class SelfCommunicator final : public Communicator {
 public:
  explicit SelfCommunicator(const CommOptions& options) : Communicator({}, options) {}

  std::string_view backend() const noexcept override { return "self"; }

  void abort(std::string_view reason, int exit_code) override {
    report(reason);
    std::exit(exit_code);
  }

 protected:
  void run_exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const Operation& operation) override {
    if (sends.size() != receives.size()) {
      throw CommError(fmt::format("{}: {} messages to oneself but {} receives", describe(operation), sends.size(),
                                  receives.size()));
    }
    for (std::size_t i = 0; i < sends.size(); ++i) {
      if (sends[i].bytes != receives[i].bytes) {
        throw CommError(fmt::format("{}: message {} has {} bytes but its receive has {}", describe(operation), i,
                                    sends[i].bytes, receives[i].bytes));
      }
      if (sends[i].bytes > 0) std::memmove(receives[i].data, sends[i].data, sends[i].bytes);
    }
  }
};

}  // namespace

CommOptions CommOptions::from_environment() {
  CommOptions options;
  const char* text = std::getenv("LOMU_COMM_DEADLINE_S");
  if (text == nullptr || *text == '\0') return options;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (*end != '\0' || !(seconds >= 0.001) || seconds > std::chrono::duration<double>(kLongestWait).count()) {
    throw UsageError(fmt::format("'{}' is not a number of seconds", text), "LOMU_COMM_DEADLINE_S",
                     "give the longest wait for other ranks, for example 300");
  }
  options.deadline = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000.0));
  return options;
}

Failure Failure::from(const std::exception& error) {
  if (const auto* ours = dynamic_cast<const Error*>(&error)) {
    return {ours->what(), ours->where(), ours->hint(), ours->exit()};
  }
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return {"not enough memory", {}, {}, Exit::kFailed};
  return {error.what(), {}, {}, Exit::kFailed};
}

Communicator::Operation Communicator::begin(std::string_view name, std::string_view what, int channel) const {
  return {name, what, channel, std::chrono::steady_clock::now() + std::min(deadline_, kLongestWait)};
}

void Communicator::check_rank(int other, std::string_view name) const {
  if (other >= 0 && other < size()) return;
  throw CommError(fmt::format("{} with rank {}, but the ranks are 0 to {}", name, other, size() - 1));
}

void Communicator::barrier(std::string_view what) {
  run_barrier(begin("barrier", what, kBarrier));
}

void Communicator::broadcast(std::span<std::byte> bytes, int root, std::string_view what) {
  check_rank(root, "broadcast");
  run_broadcast(bytes, root, begin("broadcast", what, kBroadcast));
}

void Communicator::all_gather(std::span<const std::byte> mine, std::span<std::byte> all, std::string_view what) {
  const auto ranks = static_cast<std::size_t>(size());
  if (all.size() != ranks * mine.size()) {
    throw CommError(fmt::format("all_gather of {} bytes from {} ranks into {} bytes", mine.size(), size(), all.size()));
  }
  const std::vector<std::size_t> counts(ranks, mine.size());
  run_all_gatherv(mine, all, counts, begin("all_gather", what, kAllGather));
}

void Communicator::all_gatherv(std::span<const std::byte> mine, std::span<std::byte> all,
                               std::span<const std::size_t> counts, std::string_view what) {
  std::size_t total = 0;
  for (const std::size_t count : counts) total += count;
  if (counts.size() != static_cast<std::size_t>(size()) || counts[static_cast<std::size_t>(rank())] != mine.size() ||
      total != all.size()) {
    throw CommError(fmt::format("all_gatherv: {} counts for {} ranks, {} bytes of this rank, {} of {} bytes in all",
                                counts.size(), size(), mine.size(), total, all.size()));
  }
  run_all_gatherv(mine, all, counts, begin("all_gatherv", what, kAllGatherv));
}

void Communicator::send(std::span<const std::byte> bytes, int to, int tag, std::string_view what) {
  const Outgoing message{to, bytes.data(), bytes.size()};
  exchange({&message, 1}, {}, tag, what.empty() ? "send" : what);
}

void Communicator::recv(std::span<std::byte> bytes, int from, int tag, std::string_view what) {
  const Incoming message{from, bytes.data(), bytes.size()};
  exchange({}, {&message, 1}, tag, what.empty() ? "recv" : what);
}

void Communicator::exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives, int tag,
                            std::string_view what) {
  for (const Outgoing& message : sends) check_rank(message.to, "send");
  for (const Incoming& message : receives) check_rank(message.from, "recv");
  if (tag < 0 || tag >= kTags) throw CommError(fmt::format("tag {} is not in 0 to {}", tag, kTags - 1));
  run_exchange(sends, receives, begin("exchange", what, tag));
}

void Communicator::run_barrier(const Operation& operation) {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  for (int other = 0; other < size(); ++other) {
    if (other == rank()) continue;
    sends.push_back({other, nullptr, 0});
    receives.push_back({other, nullptr, 0});
  }
  run_exchange(sends, receives, operation);
}

void Communicator::run_broadcast(std::span<std::byte> bytes, int root, const Operation& operation) {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  if (rank() != root) {
    receives.push_back({root, bytes.data(), bytes.size()});
  } else {
    for (int other = 0; other < size(); ++other) {
      if (other != root) sends.push_back({other, bytes.data(), bytes.size()});
    }
  }
  run_exchange(sends, receives, operation);
}

void Communicator::run_all_gatherv(std::span<const std::byte> mine, std::span<std::byte> all,
                                   std::span<const std::size_t> counts, const Operation& operation) {
  std::vector<Outgoing> sends;
  std::vector<Incoming> receives;
  std::size_t at = 0;
  for (int other = 0; other < size(); ++other) {
    const std::size_t count = counts[static_cast<std::size_t>(other)];
    std::byte* const place = all.data() + at;
    at += count;
    if (other != rank()) {
      sends.push_back({other, mine.data(), mine.size()});
      receives.push_back({other, place, count});
    } else if (count > 0 && place != mine.data()) {
      std::memmove(place, mine.data(), count);
    }
  }
  run_exchange(sends, receives, operation);
}

void Communicator::all_reduce_sum_ordered(std::span<double> values, std::string_view what) {
  if (size() == 1) return;
  const std::vector<double> all = gather_values<double>(*this, values, what);
  for (std::size_t i = 0; i < values.size(); ++i) {
    double sum = all[i];
    for (std::size_t at = i + values.size(); at < all.size(); at += values.size()) sum += all[at];
    values[i] = sum;
  }
}

void Communicator::all_reduce_sum(std::span<std::int64_t> values, std::string_view what) {
  if (size() == 1) return;
  const std::vector<std::int64_t> all = gather_values<std::int64_t>(*this, values, what);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::int64_t sum = 0;
    for (std::size_t at = i; at < all.size(); at += values.size()) {
      if (__builtin_add_overflow(sum, all[at], &sum)) {
        throw CommError(fmt::format("sum {} over ranks overflows 64 bits{}", i, what.empty() ? "" : ": "),
                        std::string(what));
      }
    }
    values[i] = sum;
  }
}

void Communicator::all_reduce_max(std::span<double> values, std::string_view what) {
  if (size() == 1) return;
  const std::vector<double> all = gather_values<double>(*this, values, what);
  for (std::size_t i = 0; i < values.size(); ++i) {
    double largest = all[i];
    for (std::size_t at = i; at < all.size(); at += values.size()) {
      if (std::isnan(all[at]) || all[at] > largest) largest = all[at];
      if (std::isnan(largest)) break;
    }
    values[i] = largest;
  }
}

void Communicator::agree(bool ok, std::string_view message, std::string_view what) {
  std::optional<Failure> failure;
  if (!ok) failure = Failure{std::string(message), {}, {}, Exit::kFailed};
  agree(failure, what);
}

void Communicator::agree(const std::optional<Failure>& mine, std::string_view what) {
  // 1. Everybody learns who failed.
  Verdict verdict;
  std::string text;
  if (mine) {
    Failure cut = *mine;
    for (std::string* part : {&cut.what, &cut.where, &cut.hint}) part->resize(std::min(part->size(), kLongestText));
    text = text_of(cut);
    verdict = {1,
               static_cast<std::int32_t>(cut.exit),
               static_cast<std::uint32_t>(cut.what.size()),
               static_cast<std::uint32_t>(cut.where.size()),
               static_cast<std::uint32_t>(cut.hint.size()),
               0,
               fingerprint_of(text)};
  }
  const std::vector<Verdict> all = gather_values<Verdict>(*this, std::span(&verdict, 1), what);
  const auto failed = [](const Verdict& v) { return v.failed != 0; };
  const auto first = std::find_if(all.begin(), all.end(), failed);
  if (first == all.end()) return;

  // 2. The lowest failed rank tells why.
  const int root = static_cast<int>(first - all.begin());
  text.resize(std::size_t{first->what} + first->where + first->hint);
  broadcast(std::as_writable_bytes(std::span(text)), root, what);

  const auto failures = std::count_if(all.begin(), all.end(), failed);
  const bool alike = std::all_of(all.begin(), all.end(), [&](const Verdict& v) {
    return v.failed != 0 && v.exit == first->exit && v.fingerprint == first->fingerprint;
  });
  std::string message = text.substr(0, first->what);
  if (!alike) message = fmt::format("rank {}: {}", root, message);
  if (!alike && failures > 1) message += fmt::format(" (and {} more of {} ranks failed)", failures - 1, size());
  throw AgreedError(root, std::move(message), text.substr(first->what, first->where),
                    text.substr(std::size_t{first->what} + first->where), static_cast<Exit>(first->exit));
}

std::string Communicator::describe(const Operation& operation) const {
  std::string text(operation.name);
  if (!operation.what.empty()) text += fmt::format(" ({})", operation.what);
  if (!context_.empty()) text += fmt::format(" at {}", context_);
  return text;
}

CommError Communicator::deadline_error(const Operation& operation, std::string_view waiting_for) const {
  const double seconds = std::chrono::duration<double>(deadline_).count();
  return CommError(fmt::format("rank {} of {} waited {:g} s in {} for {}", rank(), size(), seconds, describe(operation),
                               waiting_for),
                   {}, "a rank hangs or is far slower than the others; LOMU_COMM_DEADLINE_S sets the limit in seconds");
}

void Communicator::report(std::string_view reason) const {
  std::string who = size() > 1 ? fmt::format("rank {} of {}", rank(), size()) : std::string();
  if (!context_.empty()) who += who.empty() ? context_ : ", " + context_;
  write_to_stderr(who.empty() ? fmt::format("lomu: {}\n", reason) : fmt::format("lomu: {}: {}\n", who, reason));
}

int conclude(Communicator& comm, const std::exception& error) {
  const Failure failure = Failure::from(error);
  const int exit_code = static_cast<int>(failure.exit);
  std::string text = failure.where.empty() ? failure.what : fmt::format("{}: {}", failure.where, failure.what);
  if (!failure.hint.empty()) text += fmt::format("\n  hint: {}", failure.hint);
  const auto* agreed = dynamic_cast<const AgreedError*>(&error);
  if (agreed == nullptr) {
    if (comm.size() > 1) comm.abort(text, exit_code);
    comm.report(text);
  } else if (agreed->rank() == comm.rank()) {
    // The text names the rank where the ranks differ; the one that reports it is no news.
    write_to_stderr(fmt::format("lomu: {}\n", text));
  }
  return exit_code;
}

std::unique_ptr<Communicator> make_self_communicator(const CommOptions& options) {
  return std::make_unique<SelfCommunicator>(options);
}

}  // namespace lomu

#include "comm/thread_communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

namespace lomu {
namespace {

// A message offered by its sender. The bytes stay the sender's; the receiver copies them, outside the lock.
struct Offer {
  const void* data = nullptr;
  std::size_t bytes = 0;
  enum class State { kOffered, kBeingCopied, kTaken } state = State::kOffered;
};

// Names the rank in an error that a rank caught from elsewhere.
std::string reason_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception that is not a std::exception";
  }
}

// What the ranks share: the offers not yet taken, and who has failed or left. All of it under one mutex, one condition.
class World {
 public:
  explicit World(int ranks) : left_(static_cast<std::size_t>(ranks), false) {}

  struct Route {
    int from;
    int to;
    int channel;
    auto operator<=>(const Route&) const = default;
  };

  // The first failure wins: later ones are mostly its consequences.
  void fail(int rank, std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    leave_locked(rank);
    if (failed_rank_ >= 0) return;
    failed_rank_ = rank;
    reason_ = reason_of(error);
    if (!error_) error_ = std::move(error);
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    leave_locked(rank);
  }

  // Every rank throws the same error: it is kept for the caller, but those still on their way to it are not disturbed.
  void leave_agreed(int rank, std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    leave_locked(rank);
    if (!error_) error_ = std::move(error);
  }

  [[nodiscard]] std::exception_ptr error() {
    const std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  friend class ThreadCommunicator;

  void leave_locked(int rank) {
    left_[static_cast<std::size_t>(rank)] = true;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Route, std::deque<Offer*>> offers_;
  std::vector<bool> left_;
  std::exception_ptr error_;
  int failed_rank_ = -1;
  std::string reason_;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(World& world, int rank, int ranks, const CommOptions& options)
      : Communicator({rank, ranks, rank, ranks, 0}, options), world_(world) {}

  std::string_view backend() const noexcept override { return "threads"; }

  void abort(std::string_view reason, int /*exit_code*/) override {
    report(reason);
    throw CommError(fmt::format("rank {} aborted: {}", rank(), reason));
  }

 protected:
  void run_exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const Operation& operation) override {
    std::vector<Offer> offers(sends.size());
    std::unique_lock lock(world_.mutex_);
    const Withdrawal withdrawal{*this, lock, sends, offers, operation.channel};
    check_world(operation);
    for (std::size_t i = 0; i < sends.size(); ++i) {
      offers[i] = {sends[i].data, sends[i].bytes, Offer::State::kOffered};
      world_.offers_[{rank(), sends[i].to, operation.channel}].push_back(&offers[i]);
    }
    world_.changed_.notify_all();
    for (const Incoming& message : receives) take(message, operation, lock);
    for (std::size_t i = 0; i < sends.size(); ++i) {
      wait(operation, sends[i].to, lock, [&] { return offers[i].state == Offer::State::kTaken; });
    }
  }

 private:
  // Takes back what nobody took. Also when an exception passes: the bytes may go away with the caller's stack, so a
  // copy under way must end first.
  struct Withdrawal {
    ThreadCommunicator& comm;
    std::unique_lock<std::mutex>& lock;
    std::span<const Outgoing> sends;
    std::span<const Offer> offers;
    int channel;

    ~Withdrawal() {
      if (!lock.owns_lock()) lock.lock();
      for (std::size_t i = 0; i < sends.size(); ++i) {
        const auto queue = comm.world_.offers_.find({comm.rank(), sends[i].to, channel});
        if (queue == comm.world_.offers_.end()) continue;
        std::erase(queue->second, &offers[i]);
        if (queue->second.empty()) comm.world_.offers_.erase(queue);
      }
      comm.world_.changed_.wait(lock, [&] {
        return std::none_of(offers.begin(), offers.end(),
                            [](const Offer& offer) { return offer.state == Offer::State::kBeingCopied; });
      });
    }
  };

  void check_world(const Operation& operation) const {
    if (world_.failed_rank_ < 0) return;
    throw CommError(fmt::format("rank {} failed while rank {} was in {}: {}", world_.failed_rank_, rank(),
                                describe(operation), world_.reason_));
  }

  // Waits until `done`, or throws when that can no longer happen. `other` is the rank it depends on.
  template <class Done>
  void wait(const Operation& operation, int other, std::unique_lock<std::mutex>& lock, Done done) const {
    while (!done()) {
      check_world(operation);
      if (world_.left_[static_cast<std::size_t>(other)]) {
        throw CommError(
            fmt::format("rank {} has ended while rank {} waits for it in {}", other, rank(), describe(operation)));
      }
      if (world_.changed_.wait_until(lock, operation.until) == std::cv_status::timeout && !done()) {
        check_world(operation);
        throw deadline_error(operation, fmt::format("rank {}", other));
      }
    }
  }

  void take(const Incoming& message, const Operation& operation, std::unique_lock<std::mutex>& lock) const {
    const World::Route route{message.from, rank(), operation.channel};
    wait(operation, message.from, lock, [&] { return world_.offers_.contains(route); });
    const auto queue = world_.offers_.find(route);
    Offer& offer = *queue->second.front();
    if (offer.bytes != message.bytes) {
      throw CommError(fmt::format("rank {} sends {} bytes but rank {} expects {} in {}", message.from, offer.bytes,
                                  rank(), message.bytes, describe(operation)));
    }
    queue->second.pop_front();
    if (queue->second.empty()) world_.offers_.erase(queue);
    offer.state = Offer::State::kBeingCopied;
    lock.unlock();
    if (message.bytes > 0) std::memmove(message.data, offer.data, message.bytes);
    lock.lock();
    offer.state = Offer::State::kTaken;
    world_.changed_.notify_all();
  }

  World& world_;
};

}  // namespace

void run_threads(int ranks, const std::function<void(Communicator&)>& body, const CommOptions& options) {
  if (ranks < 1) throw UsageError(fmt::format("{} ranks: at least 1 is needed", ranks));
  World world(ranks);
  const auto run_rank = [&](int rank) {
    try {
      ThreadCommunicator comm(world, rank, ranks, options);
      body(comm);
      world.leave(rank);
    } catch (const AgreedError&) {
      world.leave_agreed(rank, std::current_exception());
    } catch (...) {
      world.fail(rank, std::current_exception());
    }
  };
  {
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<std::size_t>(ranks));
    try {
      for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run_rank, rank);
    } catch (const std::system_error& error) {
      // The ranks already started must not wait for those that never will.
      world.fail(static_cast<int>(threads.size()),
                 std::make_exception_ptr(CommError(
                     fmt::format("cannot start rank {} of {} as a thread: {}", threads.size(), ranks, error.what()))));
    }
  }
  if (const std::exception_ptr error = world.error()) std::rethrow_exception(error);
}

}  // namespace lomu

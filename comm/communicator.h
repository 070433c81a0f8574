// How ranks talk. One interface over one process (self), N threads of one process (threads) and MPI (mpi); NCCL plugs
// in the same way. It moves bytes and agrees on failures. It is not where gradients are summed: that is
// reduction_tree.h and gradient_reducer.h, which fix the order of every addition.
//
// Every method but the accessors is collective: all ranks call it, in the same order. A method that throws CommError
// leaves the communicator unusable: let the error reach main(), which calls abort(). An AgreedError is different: every
// rank throws the same one, so all ranks may end normally, and one of them reports it.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/error.h"

namespace lomu {

struct CommOptions {
  /// How long one operation may wait for other ranks before it is an error.
  std::chrono::milliseconds deadline = std::chrono::seconds(300);

  /// The defaults, with `deadline` from LOMU_COMM_DEADLINE_S (seconds, may be fractional) when it is set.
  /// Throws UsageError when that is not a positive number.
  static CommOptions from_environment();
};

/// A failure that every rank knows of: all ranks throw the same one at the same place. `rank()` is the lowest rank that
/// failed. what(), where(), hint() and exit() are those of that rank's error; what() starts with its rank unless every
/// rank failed alike.
class AgreedError : public CommError {
 public:
  AgreedError(int rank, std::string what, std::string where, std::string hint, Exit exit)
      : CommError(std::move(what), std::move(where), std::move(hint), exit), rank_(rank) {}
  [[nodiscard]] int rank() const noexcept { return rank_; }

 private:
  int rank_;
};

/// What one rank says about its own failure in Communicator::agree.
struct Failure {
  std::string what;
  std::string where;
  std::string hint;
  Exit exit = Exit::kFailed;

  /// The fields of a lomu::Error, or what() of any other exception.
  static Failure from(const std::exception& error);
};

/// One message of an exchange. `data` may be device memory where the implementation says so.
struct Outgoing {
  int to = 0;
  const void* data = nullptr;
  std::size_t bytes = 0;
};
struct Incoming {
  int from = 0;
  void* data = nullptr;
  std::size_t bytes = 0;
};

class Communicator {
 public:
  /// Tags of send, recv and exchange lie in [0, kTags).
  static constexpr int kTags = 1000;

  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  [[nodiscard]] int rank() const noexcept { return place_.rank; }
  [[nodiscard]] int size() const noexcept { return place_.size; }
  /// This rank among the ranks of its host, and how many those are.
  [[nodiscard]] int local_rank() const noexcept { return place_.local_rank; }
  [[nodiscard]] int local_size() const noexcept { return place_.local_size; }
  /// The world rank of local rank 0 of this host.
  [[nodiscard]] int local_leader() const noexcept { return place_.local_leader; }
  /// "self", "threads", "mpi".
  [[nodiscard]] virtual std::string_view backend() const noexcept = 0;

  /// What the program is doing, for messages: "step 12", "loading the model".
  void set_context(std::string context) { context_ = std::move(context); }
  [[nodiscard]] const std::string& context() const noexcept { return context_; }
  void set_deadline(std::chrono::milliseconds deadline) { deadline_ = deadline; }
  [[nodiscard]] std::chrono::milliseconds deadline() const noexcept { return deadline_; }

  // `what` names the purpose of an operation in error messages ("gradients to owners"). It is not compared between
  // ranks.

  /// Returns once every rank has called it.
  void barrier(std::string_view what = {});
  /// Copies root's `bytes` to every rank. All ranks pass the same size.
  void broadcast(std::span<std::byte> bytes, int root, std::string_view what = {});
  /// all[k * mine.size() ...] = rank k's `mine`. All ranks pass the same size; all.size() == size() * mine.size().
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all, std::string_view what = {});
  /// Rank k contributes counts[k] bytes; they land in `all` in rank order without gaps. `counts` is the same
  /// everywhere.
  void all_gatherv(std::span<const std::byte> mine, std::span<std::byte> all, std::span<const std::size_t> counts,
                   std::string_view what = {});
  /// Blocks until `bytes` may be reused, which may need the matching recv. Sizes of both sides must be equal.
  void send(std::span<const std::byte> bytes, int to, int tag, std::string_view what = {});
  void recv(std::span<std::byte> bytes, int from, int tag, std::string_view what = {});
  /// All sends and receives at once, in any order among each other: never deadlocks on order. Between two ranks,
  /// messages of one tag are matched in the order of their lists. A message to oneself is allowed.
  void exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives, int tag,
                std::string_view what = {});

  /// values[i] = sum over ranks of values[i], added in rank order, so every rank holds the same bits. For small
  /// metrics: the order is fixed for one world size. A sum that must not depend on the world size goes through
  /// tree_sum.
  void all_reduce_sum_ordered(std::span<double> values, std::string_view what = {});
  /// Exact, so independent of the world size. Throws CommError on overflow.
  void all_reduce_sum(std::span<std::int64_t> values, std::string_view what = {});
  /// values[i] = the largest of all ranks' values[i]; NaN if any rank has a NaN there.
  void all_reduce_max(std::span<double> values, std::string_view what = {});

  /// Every rank says whether it succeeded. If any did not, every rank throws the same AgreedError.
  void agree(bool ok, std::string_view message, std::string_view what = {});
  void agree(const std::optional<Failure>& mine, std::string_view what = {});
  /// Runs `work` on this rank, then agrees: returns its result if every rank succeeded, else every rank throws. With
  /// one rank the error passes through unchanged. `work` may itself be collective: a CommError inside it is not agreed
  /// upon.
  template <std::invocable Work>
  std::invoke_result_t<Work> together(Work&& work, std::string_view what = {});

  /// Says why on stderr (one line naming rank and context) and ends every rank with `exit_code`, within seconds, even
  /// those that wait inside an operation. `threads` ends the ranks by exceptions instead of ending the process.
  [[noreturn]] virtual void abort(std::string_view reason, int exit_code) = 0;
  /// Writes "lomu: rank 1 of 2, step 12: reason" to stderr in one piece.
  void report(std::string_view reason) const;

 protected:
  struct Place {
    int rank = 0;
    int size = 1;
    int local_rank = 0;
    int local_size = 1;
    int local_leader = 0;
  };
  /// An operation in flight: what to wait for, how long, and its name for messages.
  struct Operation {
    std::string_view name;
    std::string_view what;
    int channel;  ///< Keeps messages of tags and of collectives apart: in [0, kTags + 8).
    std::chrono::steady_clock::time_point until;
  };

  Communicator(Place place, const CommOptions& options) : place_(place), deadline_(options.deadline) {}

  // Arguments are checked before these are called. A backend must provide run_exchange; the others are built on it, and
  // a backend overrides those its library does better.
  virtual void run_exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                            const Operation& operation) = 0;
  virtual void run_barrier(const Operation& operation);
  virtual void run_broadcast(std::span<std::byte> bytes, int root, const Operation& operation);
  virtual void run_all_gatherv(std::span<const std::byte> mine, std::span<std::byte> all,
                               std::span<const std::size_t> counts, const Operation& operation);

  /// "all_gather (gradients to owners) at step 12", for messages.
  [[nodiscard]] std::string describe(const Operation& operation) const;
  [[nodiscard]] CommError deadline_error(const Operation& operation, std::string_view waiting_for) const;

 private:
  [[nodiscard]] Operation begin(std::string_view name, std::string_view what, int channel) const;
  void check_rank(int other, std::string_view name) const;

  Place place_;
  std::chrono::milliseconds deadline_;
  std::string context_;
};

/// The only rank of a world of one.
std::unique_ptr<Communicator> make_self_communicator(const CommOptions& options = {});

/// For main(): reports `error` once and says how this rank ends. An AgreedError is reported by the rank that failed,
/// and the exit code returned on all. Any other error, with more ranks than one, is reported and aborts them all: no
/// return.
int conclude(Communicator& comm, const std::exception& error);

/// Sets a communicator's deadline for the life of the object: for phases known to be long.
class ScopedDeadline {
 public:
  ScopedDeadline(Communicator& comm, std::chrono::milliseconds deadline) : comm_(comm), before_(comm.deadline()) {
    comm_.set_deadline(deadline);
  }
  ScopedDeadline(const ScopedDeadline&) = delete;
  ScopedDeadline& operator=(const ScopedDeadline&) = delete;
  ~ScopedDeadline() { comm_.set_deadline(before_); }

 private:
  Communicator& comm_;
  std::chrono::milliseconds before_;
};

template <std::invocable Work>
std::invoke_result_t<Work> Communicator::together(Work&& work, std::string_view what) {
  using Result = std::invoke_result_t<Work>;
  if (size() == 1) return std::forward<Work>(work)();
  std::optional<Failure> failure;
  if constexpr (std::is_void_v<Result>) {
    try {
      std::forward<Work>(work)();
    } catch (const CommError&) {
      throw;
    } catch (const std::exception& error) {
      failure = Failure::from(error);
    }
    agree(failure, what);
  } else {
    std::optional<Result> result;
    try {
      result.emplace(std::forward<Work>(work)());
    } catch (const CommError&) {
      throw;
    } catch (const std::exception& error) {
      failure = Failure::from(error);
    }
    agree(failure, what);
    return std::move(*result);
  }
}

}  // namespace lomu

// A stopwatch around a communicator: every operation is passed on, its time (waiting for other ranks included) is added
// to the row of its purpose.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"

namespace lomu {

/// All operations of one purpose: "gradients to owners".
struct CommunicationTime {
  std::string what;
  double seconds = 0;
};

class TimedCommunicator final : public Communicator {
 public:
  /// `inner` outlives this.
  explicit TimedCommunicator(Communicator& inner);

  /// In the order of the first use.
  [[nodiscard]] std::span<const CommunicationTime> times() const { return times_; }
  /// Of all purposes together.
  [[nodiscard]] double seconds() const;
  void reset() { times_.clear(); }

  [[nodiscard]] std::string_view backend() const noexcept override { return inner_.backend(); }
  void abort(std::string_view reason, int exit_code) override { inner_.abort(reason, exit_code); }

 protected:
  void run_exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const Operation& operation) override;
  void run_barrier(const Operation& operation) override;
  void run_broadcast(std::span<std::byte> bytes, int root, const Operation& operation) override;
  void run_all_gatherv(std::span<const std::byte> mine, std::span<std::byte> all, std::span<const std::size_t> counts,
                       const Operation& operation) override;

 private:
  template <class Call>
  void timed(const Operation& operation, const Call& call);

  Communicator& inner_;
  std::vector<CommunicationTime> times_;
};

}  // namespace lomu

#include "bench/timed_communicator.h"

#include <algorithm>
#include <chrono>

namespace lomu {

TimedCommunicator::TimedCommunicator(Communicator& inner)
    : Communicator({inner.rank(), inner.size(), inner.local_rank(), inner.local_size(), inner.local_leader()},
                   CommOptions{inner.deadline()}),
      inner_(inner) {}

double TimedCommunicator::seconds() const {
  double sum = 0;
  for (const CommunicationTime& time : times_) sum += time.seconds;
  return sum;
}

template <class Call>
void TimedCommunicator::timed(const Operation& operation, const Call& call) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  call();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const std::string_view what = operation.what.empty() ? operation.name : operation.what;
  auto row =
      std::find_if(times_.begin(), times_.end(), [&](const CommunicationTime& time) { return time.what == what; });
  if (row == times_.end()) row = times_.insert(row, CommunicationTime{std::string(what), 0});
  row->seconds += seconds;
}

void TimedCommunicator::run_exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                                     const Operation& operation) {
  // A collective that a base class makes of exchanges would come here with a channel beyond the tags; all of them are
  // passed on whole below, so the channel is the caller's tag.
  timed(operation, [&] { inner_.exchange(sends, receives, operation.channel, operation.what); });
}

void TimedCommunicator::run_barrier(const Operation& operation) {
  timed(operation, [&] { inner_.barrier(operation.what); });
}

void TimedCommunicator::run_broadcast(std::span<std::byte> bytes, int root, const Operation& operation) {
  timed(operation, [&] { inner_.broadcast(bytes, root, operation.what); });
}

void TimedCommunicator::run_all_gatherv(std::span<const std::byte> mine, std::span<std::byte> all,
                                        std::span<const std::size_t> counts, const Operation& operation) {
  timed(operation, [&] { inner_.all_gatherv(mine, all, counts, operation.what); });
}

}  // namespace lomu

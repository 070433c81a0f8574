#include "comm/mpi_communicator.h"

#include <fmt/format.h>
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "comm/launcher.h"

namespace lomu {
namespace {

// MPI counts with int. A power of two well below INT_MAX keeps the pieces of a long message aligned.
constexpr std::size_t kLargestPiece = std::size_t{1} << 30;

// Where ranks cannot read each other's memory, MPI passes a large message in pieces that move only while both sides
// look: sleeping then costs a sleep for every few pieces. So the looks follow each other, yielding the core to whoever
// needs it, for as long as the training step's messages take.
constexpr auto kSpin = std::chrono::milliseconds(30);
// After that the other rank is busy elsewhere. Sleeps add 1/16 to the time waited at most, up to this.
constexpr auto kLongestSleep = std::chrono::milliseconds(1);

void check(int code, std::string_view call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CommError(fmt::format("{}: {}", call, std::string_view(text, static_cast<std::size_t>(length))));
}

int as_count(std::size_t bytes) {
  return static_cast<int>(bytes);
}

class MpiCommunicator final : public Communicator {
 public:
  // `world` is a duplicate of MPI_COMM_WORLD, so that nobody else's messages can be mistaken for these. Owned.
  MpiCommunicator(MPI_Comm world, const CommOptions& options) : Communicator(place_in(world), options), world_(world) {}

  ~MpiCommunicator() override { MPI_Comm_free(&world_); }

  std::string_view backend() const noexcept override { return "mpi"; }

  void abort(std::string_view reason, int exit_code) override {
    std::fflush(nullptr);
    report(reason);
    MPI_Abort(world_, exit_code);
    std::_Exit(exit_code);
  }

 protected:
  void run_exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const Operation& operation) override {
    requests_.clear();
    expected_.clear();
    // Receives first: a message that finds its receive waiting needs no intermediate copy.
    for (const Incoming& message : receives) {
      auto* at = static_cast<std::byte*>(message.data);
      for_pieces(message.bytes, [&](std::size_t offset, int count) {
        check(
            MPI_Irecv(at + offset, count, MPI_BYTE, message.from, operation.channel, world_, &requests_.emplace_back()),
            "MPI_Irecv");
        expected_.push_back(count);
      });
    }
    for (const Outgoing& message : sends) {
      const auto* at = static_cast<const std::byte*>(message.data);
      for_pieces(message.bytes, [&](std::size_t offset, int count) {
        check(MPI_Isend(at + offset, count, MPI_BYTE, message.to, operation.channel, world_, &requests_.emplace_back()),
              "MPI_Isend");
      });
    }
    statuses_.resize(requests_.size());
    wait(operation, [&] {
      int done = 0;
      const int code = MPI_Testall(as_count(requests_.size()), requests_.data(), &done, statuses_.data());
      if (code == MPI_ERR_IN_STATUS) {
        for (const MPI_Status& status : statuses_) {
          if (status.MPI_ERROR != MPI_ERR_PENDING) check(status.MPI_ERROR, describe(operation));
        }
      }
      check(code, describe(operation));
      return done != 0;
    });
    for (std::size_t i = 0; i < expected_.size(); ++i) {
      int count = 0;
      check(MPI_Get_count(&statuses_[i], MPI_BYTE, &count), "MPI_Get_count");
      if (count == expected_[i]) continue;
      throw CommError(fmt::format("rank {} sends {} bytes but rank {} expects {} in {}", statuses_[i].MPI_SOURCE, count,
                                  rank(), expected_[i], describe(operation)));
    }
  }

  void run_barrier(const Operation& operation) override {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Ibarrier(world_, &request), "MPI_Ibarrier");
    wait(operation, request);
  }

  void run_broadcast(std::span<std::byte> bytes, int root, const Operation& operation) override {
    for_pieces(bytes.size(), [&](std::size_t offset, int count) {
      MPI_Request request = MPI_REQUEST_NULL;
      check(MPI_Ibcast(bytes.data() + offset, count, MPI_BYTE, root, world_, &request), "MPI_Ibcast");
      wait(operation, request);
    });
  }

  void run_all_gatherv(std::span<const std::byte> mine, std::span<std::byte> all, std::span<const std::size_t> counts,
                       const Operation& operation) override {
    if (all.size() > static_cast<std::size_t>(INT_MAX)) {
      Communicator::run_all_gatherv(mine, all, counts, operation);
      return;
    }
    counts_.clear();
    places_.clear();
    std::size_t at = 0;
    for (const std::size_t count : counts) {
      counts_.push_back(as_count(count));
      places_.push_back(as_count(at));
      at += count;
    }
    const bool in_place = mine.data() == all.data() + places_[static_cast<std::size_t>(rank())];
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallgatherv(in_place ? MPI_IN_PLACE : mine.data(), as_count(mine.size()), MPI_BYTE, all.data(),
                          counts_.data(), places_.data(), MPI_BYTE, world_, &request),
          "MPI_Iallgatherv");
    wait(operation, request);
  }

 private:
  static Place place_in(MPI_Comm world) {
    Place place;
    check(MPI_Comm_rank(world, &place.rank), "MPI_Comm_rank");
    check(MPI_Comm_size(world, &place.size), "MPI_Comm_size");
    MPI_Comm local = MPI_COMM_NULL;
    check(MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, place.rank, MPI_INFO_NULL, &local), "MPI_Comm_split_type");
    check(MPI_Comm_rank(local, &place.local_rank), "MPI_Comm_rank");
    check(MPI_Comm_size(local, &place.local_size), "MPI_Comm_size");
    place.local_leader = place.rank;
    check(MPI_Bcast(&place.local_leader, 1, MPI_INT, 0, local), "MPI_Bcast");
    check(MPI_Comm_free(&local), "MPI_Comm_free");
    return place;
  }

  template <class Piece>
  static void for_pieces(std::size_t bytes, Piece piece) {
    std::size_t offset = 0;
    do {
      const std::size_t count = std::min(bytes - offset, kLargestPiece);
      piece(offset, as_count(count));
      offset += count;
    } while (offset < bytes);
  }

  void wait(const Operation& operation, MPI_Request& request) {
    wait(operation, [&] {
      int done = 0;
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), describe(operation));
      return done != 0;
    });
  }

  // Spins briefly, then sleeps between looks. A blocking MPI call would hold the core for ever and know no deadline.
  template <class Done>
  void wait(const Operation& operation, Done done) const {
    const auto start = std::chrono::steady_clock::now();
    while (!done()) {
      const auto now = std::chrono::steady_clock::now();
      if (now >= operation.until) throw deadline_error(operation, "other ranks");
      if (now - start < kSpin) {
        sched_yield();
        continue;
      }
      std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>((now - start) / 16, kLongestSleep));
    }
  }

  MPI_Comm world_;
  // Kept between calls so that a step allocates nothing.
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
  std::vector<int> expected_;
  std::vector<int> counts_;
  std::vector<int> places_;
};

void initialise() {
  int done = 0;
  check(MPI_Initialized(&done), "MPI_Initialized");
  if (done != 0) throw CommError("MPI is initialised already: one MpiEnvironment serves the whole program");
  int provided = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  if (provided < MPI_THREAD_FUNNELED) {
    throw CommError("this MPI library does not allow threads beside its own (MPI_THREAD_FUNNELED)",
                    MpiEnvironment::library_version());
  }
}

}  // namespace

MpiEnvironment::MpiEnvironment(const CommOptions& options) : exceptions_at_start_(std::uncaught_exceptions()) {
  const std::optional<int> launched = launched_ranks();
  if (!launched) {
    world_ = make_self_communicator(options);
    return;
  }
  initialise();
  initialised_ = true;
  MPI_Comm world = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
  check(MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  world_ = std::make_unique<MpiCommunicator>(world, options);
  if (*launched > 0) check_launch(*launched, world_->size(), library_version());
}

MpiEnvironment::~MpiEnvironment() {
  if (!initialised_) return;
  if (std::uncaught_exceptions() > exceptions_at_start_) world_->abort("an error nobody handled ends this rank", 1);
  world_.reset();
  MPI_Finalize();
}

std::string MpiEnvironment::library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  check(MPI_Get_library_version(text, &length), "MPI_Get_library_version");
  std::string line(text, static_cast<std::size_t>(length));
  return line.substr(0, line.find_first_of(",\n"));
}

}  // namespace lomu

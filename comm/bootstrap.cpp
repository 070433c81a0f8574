#include "comm/bootstrap.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "comm/mpi_communicator.h"
#include "comm/tcp_communicator.h"
#include "kernels/error.h"

namespace lomu {
namespace {

constexpr const char* kRendezvous = "LOMU_RENDEZVOUS";
constexpr const char* kHowToMeet =
    "set MASTER_ADDR and MASTER_PORT to rank 0's host and a free port, or LOMU_RENDEZVOUS to a path that all ranks "
    "see; "
    "on one machine, launch/ranks -n N sets everything";

/// The variables in which a launcher tells each process its place. `local_rank` may be null.
struct Family {
  const char* launcher;
  const char* rank;
  const char* size;
  const char* local_rank;
  bool by_mpi;
};
constexpr Family kTorchrun = {"RANK and WORLD_SIZE", "RANK", "WORLD_SIZE", "LOCAL_RANK", false};
constexpr Family kLaunchers[] = {
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", true},
    {"MVAPICH", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", true},
    {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", true},
    // Of an srun step alone: SLURM_NTASKS is also set in the shells of sbatch and salloc.
    {"Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", true},
};

bool is_set(const Environment& environment, const char* name) {
  const char* text = environment(name);
  return text != nullptr && *text != '\0';
}

int number(const Environment& environment, const char* name) {
  const std::string_view text = environment(name);
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    throw UsageError(fmt::format("'{}' is not a number from 0", text), name);
  }
  return value;
}

std::optional<LaunchedPlace> place_in(const Environment& environment, const Family& family) {
  if (!is_set(environment, family.rank) || !is_set(environment, family.size)) return std::nullopt;
  LaunchedPlace place;
  place.rank = number(environment, family.rank);
  place.size = number(environment, family.size);
  place.launcher = family.launcher;
  place.by_mpi = family.by_mpi;
  if (is_set(environment, family.local_rank)) place.local_rank = number(environment, family.local_rank);
  if (place.rank >= place.size) {
    throw UsageError(fmt::format("rank {} of a world of {}", place.rank, place.size), family.rank,
                     fmt::format("{} counts from 0 and stays below {}", family.rank, family.size));
  }
  return place;
}

std::optional<LaunchedPlace> mpi_place(const Environment& environment) {
  for (const Family& family : kLaunchers) {
    std::optional<LaunchedPlace> place = place_in(environment, family);
    // `srun --pty bash` is a step of one task: a program started in it was started by itself.
    const bool shell = place && place->size == 1 && std::string_view(family.launcher) == "Slurm";
    if (place && !shell) return place;
  }
  return std::nullopt;
}

}  // namespace

std::optional<LaunchedPlace> launched_place(const Environment& environment) {
  const bool each_process = is_set(environment, kTorchrun.local_rank);
  if (each_process) {
    if (auto place = place_in(environment, kTorchrun)) return place;
  }
  if (auto place = mpi_place(environment)) return place;
  return place_in(environment, kTorchrun);
}

std::optional<MeetingPlace> meeting_place(const Environment& environment) {
  if (is_set(environment, kRendezvous)) {
    constexpr std::string_view kScheme = "tcp://";
    const std::string_view text = environment(kRendezvous);
    if (text.starts_with(kScheme)) return MeetingPlace{Address::parse(text.substr(kScheme.size()), kRendezvous), {}};
    if (text.find("://") != std::string_view::npos) {
      throw UsageError(fmt::format("'{}' is neither a path nor tcp://host:port", text), kRendezvous);
    }
    return MeetingPlace{std::nullopt, text};
  }
  if (!is_set(environment, "MASTER_ADDR") || !is_set(environment, "MASTER_PORT")) return std::nullopt;
  int port = number(environment, "MASTER_PORT");
  const char* const agent = environment("TORCHELASTIC_USE_AGENT_STORE");
  if (agent != nullptr && std::string_view(agent) == "True") ++port;
  if (port < 1 || port > 65535) throw UsageError(fmt::format("port {} is not in 1 to 65535", port), "MASTER_PORT");
  return MeetingPlace{Address{environment("MASTER_ADDR"), port}, {}};
}

Transport choose_transport(const std::optional<LaunchedPlace>& place, const std::optional<MeetingPlace>& meeting,
                           const Environment& environment, bool build_has_mpi) {
  const bool several = place && place->size > 1;
  if (several && meeting) {
    // Variables of both kinds that say the same come from a script that translates MPI's into torchrun's.
    const std::optional<LaunchedPlace> mpi = mpi_place(environment);
    const bool same = mpi && mpi->rank == place->rank && mpi->size == place->size;
    if (is_set(environment, kRendezvous) || !build_has_mpi || !same) return Transport::kTcp;
    return Transport::kMpi;
  }
  if (several && !place->by_mpi) {
    throw UsageError(fmt::format("rank {} of {}, but nothing says where the ranks meet", place->rank, place->size),
                     place->launcher, kHowToMeet);
  }
  if (several && !build_has_mpi) {
    throw UsageError(fmt::format("{} started {} ranks, but this build has no MPI and nothing says where they meet",
                                 place->launcher, place->size),
                     {}, kHowToMeet);
  }
  if (place && !place->by_mpi) return Transport::kAlone;
  // Also a launcher that keeps the size to itself until MPI starts.
  return build_has_mpi && launched_ranks(environment) ? Transport::kMpi : Transport::kAlone;
}

JobRanks::JobRanks(const CommOptions& options) : exceptions_at_start_(std::uncaught_exceptions()) {
  const Environment environment = [](const char* name) { return static_cast<const char*>(std::getenv(name)); };
  const std::optional<LaunchedPlace> place = launched_place(environment);
  const std::optional<MeetingPlace> meeting = meeting_place(environment);
  const bool build_has_mpi = MpiEnvironment::library_version() != "none";
  switch (choose_transport(place, meeting, environment, build_has_mpi)) {
    case Transport::kAlone: own_ = make_self_communicator(options); return;
    case Transport::kMpi: mpi_ = std::make_unique<MpiEnvironment>(options); return;
    case Transport::kTcp: own_ = make_tcp_communicator(place->rank, place->size, *meeting, options); return;
  }
}

JobRanks::~JobRanks() {
  const bool by_exception = std::uncaught_exceptions() > exceptions_at_start_;
  if (own_ && own_->size() > 1 && by_exception) own_->abort("an error nobody handled ends this rank", 1);
}

Communicator& JobRanks::world() noexcept {
  return mpi_ ? mpi_->world() : *own_;
}

}  // namespace lomu

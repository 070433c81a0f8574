// How a process learns that it is a rank of a job, and gets to talk with the others: by MPI where mpirun or srun
// started it and this build has MPI; else over TCP, from the environment that torchrun, srun, a cluster's operator or
// launch/ranks leave (docs/gpu_ranks.md). main() owns one JobRanks; everything below sees a Communicator.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "comm/launcher.h"
#include "comm/meeting.h"

namespace lomu {

class MpiEnvironment;

/// What the environment says of this process among the ranks of its job.
struct LaunchedPlace {
  int rank = 0;
  int size = 1;
  std::optional<int> local_rank;  ///< among the ranks of its host
  std::string launcher;           ///< "RANK and WORLD_SIZE", "Open MPI", "MVAPICH", "PMI", "Slurm"
  bool by_mpi = false;            ///< started by a launcher that an MPI library understands
};

/// The innermost launcher's: RANK, WORLD_SIZE and LOCAL_RANK, which torchrun and launch/ranks set for each process,
/// come first; then OMPI_COMM_WORLD_*, MV2_COMM_WORLD_*, PMI_*, and SLURM_PROCID of an srun step with several tasks;
/// last RANK and WORLD_SIZE alone, as set for the only process of a container. Nothing for a process started by itself.
/// Throws UsageError when numbers are malformed or a rank lies outside its world.
std::optional<LaunchedPlace> launched_place(const Environment& environment);

/// Where rank 0 is met: LOMU_RENDEZVOUS (a path that all ranks see, or tcp://host:port), else MASTER_ADDR and
/// MASTER_PORT; one port higher where torchrun's own store listens at MASTER_PORT. Nothing when neither is set. Throws
/// UsageError when they are malformed.
std::optional<MeetingPlace> meeting_place(const Environment& environment);

enum class Transport { kAlone, kMpi, kTcp };

/// How this process reaches the others. Throws UsageError for several ranks that no MPI connects and that are not told
/// where to meet; the hint says what to set.
Transport choose_transport(const std::optional<LaunchedPlace>& place, const std::optional<MeetingPlace>& meeting,
                           const Environment& environment, bool build_has_mpi);

/// Like MpiEnvironment: when it goes because an exception passes by, it ends all ranks.
class JobRanks {
 public:
  /// Collective over the ranks of the job. Throws what MpiEnvironment, meet() and the functions above throw.
  explicit JobRanks(const CommOptions& options = {});
  JobRanks(const JobRanks&) = delete;
  JobRanks& operator=(const JobRanks&) = delete;
  ~JobRanks();

  [[nodiscard]] Communicator& world() noexcept;

 private:
  int exceptions_at_start_;
  std::unique_ptr<MpiEnvironment> mpi_;
  std::unique_ptr<Communicator> own_;  ///< over TCP, or of a rank that is alone
};

}  // namespace lomu

// MPI for the life of the program. No MPI type appears here; mpi.h stays in mpi_communicator.cpp.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"

namespace lomu {

/// Owned by main(): initialises MPI when a launcher started this process, else stands for a world of one without
/// touching MPI. It ends MPI when it goes; when it goes because an exception passes by, it ends all ranks instead, for
/// the others would wait for this one for ever.
class MpiEnvironment {
 public:
  /// Throws CommError when MPI cannot start, or sees another number of ranks than the launcher (the launcher of another
  /// MPI, or srun without --mpi=pmix); UnsupportedError when this build has no MPI and there are more ranks than one.
  explicit MpiEnvironment(const CommOptions& options = {});
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;
  ~MpiEnvironment();

  [[nodiscard]] Communicator& world() noexcept { return *world_; }
  /// The MPI library's own version line, or "none" when MPI was not started.
  [[nodiscard]] static std::string library_version();

 private:
  std::unique_ptr<Communicator> world_;
  bool initialised_ = false;
  int exceptions_at_start_ = 0;
};

}  // namespace lomu

// Stands for mpi_communicator.cpp in a build without MPI: a world of one works, more ranks are refused.
#include <fmt/format.h>

#include "comm/launcher.h"
#include "comm/mpi_communicator.h"

namespace lomu {

MpiEnvironment::MpiEnvironment(const CommOptions& options) : world_(make_self_communicator(options)) {
  const std::optional<int> launched = launched_ranks();
  if (!launched || *launched == 1) return;
  throw UnsupportedError("a launcher started several ranks but this build has no MPI", {},
                         "install libopenmpi-dev and build again, or start one process");
}

MpiEnvironment::~MpiEnvironment() = default;

std::string MpiEnvironment::library_version() {
  return "none";
}

}  // namespace lomu

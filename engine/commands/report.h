// How a failure is told: three short lines on standard error, with colours on a terminal, and the rank that fails.
#pragma once

#include <exception>
#include <string>
#include <string_view>

#include "engine/config/terminal.h"
#include "kernels/error.h"

namespace lomu {

/// This process among those that a launcher started, from the launcher's environment; 0 of 1 without one.
/// Not a communicator: it is known before MPI is, and serves messages only.
struct LaunchRank {
  int rank = 0;
  int world = 1;
};

/// From OMPI_COMM_WORLD_*, PMI_* or SLURM_PROCID/SLURM_NTASKS, the first that is complete.
LaunchRank launch_rank();

/// "lomu: error: WHAT\n  where: WHERE\n  hint: HINT\n", without the lines that have no text; "lomu: rank 3: error: ..."
/// in a world of several ranks. All problems of a ConfigError, one after another.
std::string error_text(const Error& error, LaunchRank rank, const Style& style);

/// Tells `failure` on standard error and returns the exit code. Never throws.
int report(std::exception_ptr failure, LaunchRank rank) noexcept;

}  // namespace lomu

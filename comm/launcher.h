// What the environment says about the launcher of this process: mpirun, mpiexec or srun. Asks no MPI library.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

namespace lomu {

/// Looks up an environment variable; null when it is not set.
using Environment = std::function<const char*(const char*)>;

/// How many ranks the launcher started; 0 when a launcher is there but does not say. Nothing when this process was
/// started by itself, also inside an sbatch or salloc shell, whose variables describe the allocation and not this
/// process.
std::optional<int> launched_ranks(const Environment& environment);
/// The same of this process.
std::optional<int> launched_ranks();

/// Throws CommError unless the MPI library sees as many ranks as the launcher started: with another MPI's launcher each
/// process would believe to be alone, and all would write the same output.
void check_launch(int launched, int seen, std::string_view library);

}  // namespace lomu

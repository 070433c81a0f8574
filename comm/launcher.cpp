#include "comm/launcher.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "kernels/error.h"

namespace lomu {
namespace {

// Open MPI's mpirun; Hydra (MPICH, Intel MPI) and PMI-1/2 launchers; MVAPICH.
constexpr const char* kWorldSizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"};
// Set for each rank by launchers that keep the size to themselves until MPI starts.
constexpr const char* kRanks[] = {"PMIX_RANK", "PMI_RANK"};
// Of an srun step only. SLURM_NTASKS is also set in the shell of sbatch and salloc, where nothing was launched.
constexpr const char* kSlurmStepTasks = "SLURM_STEP_NUM_TASKS";

std::optional<int> number(const char* text) {
  if (text == nullptr || *text == '\0') return std::nullopt;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*end != '\0' || value < 1 || value > 1'000'000'000) return std::nullopt;
  return static_cast<int>(value);
}

}  // namespace

std::optional<int> launched_ranks(const Environment& environment) {
  for (const char* name : kWorldSizes) {
    if (const auto size = number(environment(name))) return size;
  }
  // `srun --pty bash` is a step of one task: a program started in it was started by itself.
  const auto tasks = number(environment(kSlurmStepTasks));
  if (tasks && *tasks > 1) return tasks;
  for (const char* name : kRanks) {
    if (environment(name) != nullptr) return tasks.value_or(0);
  }
  return std::nullopt;
}

std::optional<int> launched_ranks() {
  return launched_ranks([](const char* name) { return static_cast<const char*>(std::getenv(name)); });
}

void check_launch(int launched, int seen, std::string_view library) {
  if (launched == seen) return;
  throw CommError(fmt::format("the launcher started {} ranks but MPI sees {}", launched, seen), std::string(library),
                  "use the mpirun of that MPI library; with srun, add --mpi=pmix");
}

}  // namespace lomu

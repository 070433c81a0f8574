#include "engine/commands/doctor.h"

#include <algorithm>
#include <chrono>

#include "comm/bootstrap.h"
#include "engine/commands/doctor_findings.h"

namespace lomu {
namespace {

// A rank that is missing shall not be waited for as long as one that trains.
constexpr std::chrono::seconds kPatience{60};

Exit examine(const DoctorOptions& options, Communicator& comm) {
  std::vector<Section> sections = {examine_build(), examine_machine(), examine_gpus(comm), examine_speed(comm),
                                   examine_ranks(comm)};
  if (comm.rank() == 0) {
    // A launcher shows a rank a terminal of its own, wherever the output goes in the end.
    const Style style = comm.size() == 1 ? style_for(stdout) : Style();
    write_out(options.json ? doctor_json(sections) : doctor_text(sections, style));
  }
  // Each rank has looked at its own machine.
  double broken = is_well(sections) ? 0 : 1;
  comm.all_reduce_max({&broken, 1}, "the verdict of all ranks");
  return broken == 0 ? Exit::kDone : Exit::kFailed;
}

}  // namespace

Exit run_doctor(const DoctorOptions& options) {
  CommOptions comm_options = CommOptions::from_environment();
  comm_options.deadline = std::min<std::chrono::milliseconds>(comm_options.deadline, kPatience);
  JobRanks job(comm_options);
  Communicator& world = job.world();
  if (world.size() == 1) return examine(options, world);
  try {
    return examine(options, world);
  } catch (const std::exception& error) {
    return static_cast<Exit>(conclude(world, error));
  }
}

}  // namespace lomu

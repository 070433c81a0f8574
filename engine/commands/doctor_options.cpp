#include <CLI/CLI.hpp>

#include "engine/commands/doctor.h"

namespace lomu {

CLI::App& declare(CLI::App& program, DoctorOptions& options) {
  CLI::App& command = *program.add_subcommand("doctor", "What this build and machine can do, and what is missing");
  command.add_flag("--json", options.json, "One JSON object instead of text");
  command.footer(
      "Exit code 1 when something that this build needs is broken.\n"
      "Examples:\n"
      "  lomu doctor\n"
      "  mpirun -np 4 lomu doctor        where the ranks sit, and whether messages between them arrive whole");
  return command;
}

}  // namespace lomu

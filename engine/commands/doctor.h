// `lomu doctor`: what this build and this machine can do, what is missing, and what to do about it. Under mpirun also
// how the ranks see each other.
#pragma once

#include "kernels/error.h"

namespace CLI {
class App;
}

namespace lomu {

struct DoctorOptions {
  bool json = false;
};

/// Adds `doctor` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, DoctorOptions& options);

/// kFailed when something that this build needs is broken; what is merely missing or slow is told and is no failure.
Exit run_doctor(const DoctorOptions& options);

}  // namespace lomu

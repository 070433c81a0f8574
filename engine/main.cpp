// The program: its commands, and nothing else.
#include <cstddef>
#include <span>

#include "engine/commands/doctor.h"
#include "engine/commands/export.h"
#include "engine/commands/generate.h"
#include "engine/commands/inspect.h"
#include "engine/commands/plan.h"
#include "engine/commands/program.h"
#include "engine/commands/report_runs.h"
#include "engine/commands/schema.h"
#include "engine/commands/study.h"
#include "engine/commands/train.h"
#include "engine/commands/verify.h"

int main(int argc, char** argv) {
  lomu::Program program;
  program.add(lomu::run_train);
  program.add(lomu::run_generate);
  program.add(lomu::run_export);
  program.add(lomu::run_inspect);
  program.add(lomu::run_schema);
  program.add(lomu::run_plan);
  program.add(lomu::run_study);
  program.add(lomu::run_report);
  program.add(lomu::run_verify);
  program.add(lomu::run_doctor);
  const std::span<const char* const> all(argv, static_cast<std::size_t>(argc));
  return program.run(all.subspan(argc > 0 ? 1 : 0));
}

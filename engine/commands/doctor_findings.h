// What `lomu doctor` looks at: one finding a line, gathered by section, and the two ways to show them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"
#include "engine/config/terminal.h"

namespace lomu {

enum class Verdict {
  kOk,
  kMissing,  ///< not in this build or machine, which works without it
  kWarning,  ///< works, but not as it could
  kBroken,   ///< something that this build needs does not work
};

/// "ok", "missing", "warning", "broken".
std::string_view name_of(Verdict verdict);

struct Finding {
  std::string name;
  Verdict verdict = Verdict::kOk;
  std::string value;
  std::string advice = {};            ///< what to do; empty where nothing is to be done
  std::optional<double> number = {};  ///< the value for scripts: bytes, bytes or operations a second, seconds, a count
};

struct Section {
  std::string name;
  std::vector<Finding> findings;
};

/// Version, commit, compiler and libraries.
Section examine_build();
/// Processor, cores and memory.
Section examine_machine();
/// The backend, the driver and every GPU; a product on each that this rank may use, unless the ranks share a machine:
/// then on the one of this rank.
Section examine_gpus(const Communicator& comm);
/// Copying and products on the CPU, at the same time on every rank. Collective.
Section examine_speed(Communicator& comm);
/// Who sits where, whether all run the same program, and messages around the ring. Collective; empty for one rank.
Section examine_ranks(Communicator& comm);
/// Messages around the ring of the ranks' GPUs, and a sum over them. Collective; nothing where there is one rank, or no
/// GPU that the ranks could use.
std::optional<Finding> examine_gpu_ring(Communicator& comm);

std::string doctor_text(const std::vector<Section>& sections, const Style& style);
/// {"ok": ..., "SECTION": {"NAME": {"status", "value", "number", "advice"}}}, the last two where there are any.
std::string doctor_json(const std::vector<Section>& sections);
/// Whether nothing is broken.
bool is_well(const std::vector<Section>& sections);

}  // namespace lomu

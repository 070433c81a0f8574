#include <fmt/format.h>
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "comm/mpi_communicator.h"
#include "engine/commands/commit.h"
#include "engine/commands/doctor_findings.h"

namespace lomu {
namespace {

Finding onednn() {
  const dnnl::version_t& version = *dnnl::version();
  const std::string text = fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
  if (version.major == DNNL_VERSION_MAJOR) return {"oneDNN", Verdict::kOk, text};
  return {"oneDNN", Verdict::kBroken, fmt::format("{}, but built for {}", text, DNNL_VERSION_MAJOR),
          "build again on this machine"};
}

Finding mpi() {
  const std::string version = MpiEnvironment::library_version();
  if (version != "none") return {"MPI", Verdict::kOk, version};
  return {"MPI", Verdict::kMissing, "not in this build: one process, ranks as threads",
          "for mpirun, install libopenmpi-dev and openmpi-bin and build again"};
}

Finding build_type() {
  const std::string sanitizers = LOMU_SANITIZERS;
  const std::string type = LOMU_BUILD_TYPE;
  if (!sanitizers.empty()) {
    return {"build", Verdict::kWarning, fmt::format("{}, with the sanitizers {}", type, sanitizers),
            "for speed: cmake --preset cpu (or cuda)"};
  }
  if (type == "Debug" || type.empty()) {
    return {"build", Verdict::kWarning, type.empty() ? "without optimisation" : type,
            "for speed: cmake --preset cpu (or cuda)"};
  }
  return {"build", Verdict::kOk,
          fmt::format("{}, {}", type,
                      LOMU_FOR_THIS_MACHINE ? "for the machine it was built on" : "for any machine of its kind")};
}

}  // namespace

Section examine_build() {
  Section build{"build", {}};
  build.findings.push_back({"version", Verdict::kOk, LOMU_VERSION});
  build.findings.push_back({"commit", Verdict::kOk, commit()});
  build.findings.push_back({"compiler", Verdict::kOk, LOMU_COMPILER});
  build.findings.push_back(build_type());
  build.findings.push_back(onednn());
  build.findings.push_back(mpi());
  build.findings.push_back({"libraries", Verdict::kOk, LOMU_LIBRARIES});
  return build;
}

}  // namespace lomu

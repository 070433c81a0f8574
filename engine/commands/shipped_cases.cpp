#include "engine/commands/shipped_cases.h"

#include <cstdlib>
#include <system_error>

#include "kernels/error.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr const char* kVariable = "LOMU_CASES";

fs::path installed_cases() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path() : program.parent_path().parent_path() / "share" / "lomu" / "cases";
}

}  // namespace

fs::path shipped_cases() {
  std::error_code error;
  if (const char* named = std::getenv(kVariable); named != nullptr && *named != '\0') {
    if (fs::is_directory(named, error)) return named;
    throw FileError("there is no such folder of reference cases", named, "LOMU_CASES names it");
  }
  for (const fs::path& place : {installed_cases(), fs::path(LOMU_SOURCE_CASES)}) {
    if (!place.empty() && fs::is_directory(place, error)) return place;
  }
  throw FileError("the reference cases of this program are missing", LOMU_SOURCE_CASES,
                  "set LOMU_CASES to a folder of them, as tests/data of the source tree");
}

}  // namespace lomu

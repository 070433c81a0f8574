#include "engine/verify/model_cases.h"

#include <algorithm>
#include <system_error>

#include "engine/verify/comparison.h"
#include "kernels/error.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

/// The folder itself if it holds a case, else its subfolders that do, by name.
std::vector<fs::path> find_cases(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw FileError("there is no such folder", folder.string(), "name a folder with expected.json");
  }
  if (fs::exists(folder / "expected.json")) return {fs::weakly_canonical(folder)};
  std::vector<fs::path> cases;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (fs::exists(entry.path() / "expected.json")) cases.push_back(entry.path());
  }
  if (cases.empty()) throw FileError("no reference case is in this folder", folder.string(), "it needs expected.json");
  std::sort(cases.begin(), cases.end());
  return cases;
}

}  // namespace

std::vector<ModelCheck> verify_model_cases(const fs::path& folder, const fs::path& weights, const Ops& ops, int threads,
                                           Memory& memory) {
  std::vector<ModelCheck> checks;
  for (const fs::path& one : find_cases(folder)) {
    const bool has_model = fs::exists(one / "config.json");
    if (!has_model && weights.empty()) {
      throw UsageError("this case holds results only", one.string(), "name the model with --weights FILE");
    }
    const auto some = has_model ? verify::verify_small_model(one, ops, threads, memory)
                                : verify::verify_real_model(one, weights, ops, threads, memory);
    checks.insert(checks.end(), some.begin(), some.end());
  }
  return checks;
}

}  // namespace lomu

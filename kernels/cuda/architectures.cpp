#include "kernels/cuda/architectures.h"

#include <charconv>

namespace lomu::cuda {
namespace {

bool one_runs_on(std::string_view word, int major, int minor) {
  if (word == "all" || word == "all-major" || word == "native") return true;
  int number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc() || number < 10) return false;
  const std::string_view suffix = word.substr(static_cast<std::size_t>(end - word.data()));
  const int device = 10 * major + minor;
  const bool own_code = device >= number && device / 10 == number / 10;
  if (suffix.starts_with('a')) return device == number;
  if (suffix.starts_with('f') || suffix == "-real") return own_code;
  if (suffix.empty() || suffix == "-virtual") return device >= number;
  return false;
}

}  // namespace

bool runs_on(std::string_view architectures, int major, int minor) {
  while (!architectures.empty()) {
    const std::size_t end = architectures.find(',');
    if (one_runs_on(architectures.substr(0, end), major, minor)) return true;
    if (end == std::string_view::npos) return false;
    architectures.remove_prefix(end + 1);
  }
  return false;
}

}  // namespace lomu::cuda

#include "engine/commands/doctor_machine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

#include "engine/commands/doctor_findings.h"
#include "engine/session/cores.h"
#include "kernels/ops.h"

namespace lomu {
namespace {

/// The whole of a small file of /proc or /sys; empty where there is none.
std::string text_of(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// Calls visit(key, value) for each "key : value" line, until it says false.
template <class Visit>
void each_field(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    if (!visit(trimmed(line.substr(0, colon)), trimmed(line.substr(colon + 1)))) return;
  }
}

/// Instructions that the compiler was allowed to use, by the kernel's names.
std::vector<std::string> compiled_for() {
  std::vector<std::string> flags;
#ifdef __AVX2__
  flags.emplace_back("avx2");
#endif
#ifdef __FMA__
  flags.emplace_back("fma");
#endif
#ifdef __AVX512F__
  flags.emplace_back("avx512f");
#endif
#ifdef __AVX512VNNI__
  flags.emplace_back("avx512_vnni");
#endif
#ifdef __AVX512BF16__
  flags.emplace_back("avx512_bf16");
#endif
#ifdef __AMX_BF16__
  flags.emplace_back("amx_bf16");
#endif
  return flags;
}

Finding instructions(const ProcessorText& processor) {
  std::vector<std::string> lacking;
  for (const std::string& flag : compiled_for()) {
    if (!processor.has(flag)) lacking.push_back(flag);
  }
  if (!processor.flags.empty() && !lacking.empty()) {
    return {"instructions", Verdict::kBroken,
            fmt::format("built for {}, which this CPU lacks", fmt::join(lacking, ", ")),
            "build on this machine, or with -DLOMU_NATIVE=OFF"};
  }
  std::vector<std::string> present;
  for (const char* flag : {"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"}) {
    if (processor.has(flag)) present.emplace_back(flag);
  }
  return {"instructions", Verdict::kOk,
          present.empty() ? "none that matter here" : fmt::format("{}", fmt::join(present, " "))};
}

Finding bf16() {
  if (cpu_has_fast_bf16()) return {"bf16", Verdict::kOk, "multiplied natively: dtype auto takes it"};
  return {"bf16", Verdict::kMissing, "this CPU does not multiply it: dtype auto is f32"};
}

Finding cores() {
  const std::vector<int> allowed = allowed_cores();
  const auto count = static_cast<double>(allowed.size());
  const std::string text = fmt::format("{} ({})", allowed.size(), ranges_text(allowed));
  const auto quota = container_quota();
  if (!quota) return {"cores", Verdict::kOk, text, {}, count};
  const std::string limited = fmt::format("{}, and a container's limit of {:.1f} cores of time", text, *quota);
  if (*quota >= count) return {"cores", Verdict::kOk, limited, {}, count};
  return {"cores", Verdict::kWarning, limited, "threads beyond the limit wait: raise it, or leave runtime.threads at 0",
          *quota};
}

void add_memory(std::vector<Finding>& findings) {
  const std::string meminfo = text_of("/proc/meminfo");
  const auto total = parse_meminfo(meminfo, "MemTotal");
  const auto available = parse_meminfo(meminfo, "MemAvailable");
  if (!total || !available) {
    findings.push_back({"memory", Verdict::kWarning, "/proc/meminfo does not say"});
    return;
  }
  std::uint64_t limit = 0;
  const std::string group = text_of("/sys/fs/cgroup/memory.max");
  std::from_chars(group.data(), group.data() + group.size(), limit);
  const bool limited = limit > 0 && limit < *total;
  findings.push_back({"memory",
                      Verdict::kOk,
                      limited
                          ? fmt::format("{}, and a container's limit of {}", human_bytes(*total), human_bytes(limit))
                          : human_bytes(*total),
                      {},
                      static_cast<double>(limited ? limit : *total)});
  const bool tight = *available < *total / 20;
  findings.push_back({"memory free", tight ? Verdict::kWarning : Verdict::kOk, human_bytes(*available),
                      tight ? "end other programs, or use a machine with more" : "", static_cast<double>(*available)});
}

Finding huge_pages() {
  const std::string choice = parse_choice(text_of("/sys/kernel/mm/transparent_hugepage/enabled"));
  if (choice == "always" || choice == "madvise") return {"huge pages", Verdict::kOk, choice};
  if (choice.empty()) return {"huge pages", Verdict::kMissing, "the kernel has no transparent huge pages"};
  return {"huge pages", Verdict::kWarning, choice,
          "a few percent of speed: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root)"};
}

}  // namespace

bool ProcessorText::has(std::string_view flag) const {
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

ProcessorText parse_cpuinfo(std::string_view text) {
  ProcessorText processor;
  each_field(text, [&](std::string_view key, std::string_view value) {
    if (key == "model name" && processor.model.empty()) processor.model = value;
    if (key != "flags" && key != "Features") return true;  // x86's name and Arm's
    std::istringstream words{std::string(value)};
    for (std::string word; words >> word;) processor.flags.push_back(word);
    return false;
  });
  return processor;
}

std::optional<std::uint64_t> parse_meminfo(std::string_view text, std::string_view key) {
  std::optional<std::uint64_t> bytes;
  each_field(text, [&](std::string_view name, std::string_view value) {
    if (name != key) return true;
    std::uint64_t kib = 0;
    if (std::from_chars(value.data(), value.data() + value.size(), kib).ec == std::errc()) bytes = kib * 1024;
    return false;
  });
  return bytes;
}

std::string parse_choice(std::string_view text) {
  const auto open = text.find('[');
  const auto close = text.find(']', open == std::string_view::npos ? 0 : open);
  if (open == std::string_view::npos || close == std::string_view::npos) return {};
  return std::string(text.substr(open + 1, close - open - 1));
}

std::string ranges_text(const std::vector<int>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t end = i;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) ++end;
    if (!text.empty()) text += ',';
    text += end == i ? fmt::format("{}", numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[end]);
    i = end + 1;
  }
  return text;
}

Section examine_machine() {
  const ProcessorText processor = parse_cpuinfo(text_of("/proc/cpuinfo"));
  Section machine{"machine", {}};
  machine.findings.push_back({"processor", Verdict::kOk, processor.model.empty() ? "unnamed" : processor.model});
  machine.findings.push_back(instructions(processor));
  machine.findings.push_back(bf16());
  machine.findings.push_back(cores());
  add_memory(machine.findings);
  machine.findings.push_back(huge_pages());
  return machine;
}

}  // namespace lomu

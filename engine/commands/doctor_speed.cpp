#include <fmt/format.h>

#include <algorithm>

#include "engine/commands/doctor_findings.h"
#include "engine/session/compute.h"
#include "engine/session/speed.h"

namespace lomu {
namespace {

constexpr double kCopySeconds = 0.3;
constexpr double kProductSeconds = 0.2;
constexpr std::int64_t kProductSize = 1024;
// Beyond the caches of a server, and a small part of any machine's memory however many ranks copy at once.
constexpr std::size_t kCopyBytes = std::size_t{256} << 20;
constexpr std::size_t kLeastCopyBytes = std::size_t{16} << 20;

Finding copy(int threads, int ranks) {
  const std::size_t bytes = std::max(kLeastCopyBytes, kCopyBytes / static_cast<std::size_t>(ranks));
  Memory memory;
  const double rate = host_copy_rate(memory, bytes, threads, kCopySeconds);
  return {"copy",
          Verdict::kOk,
          fmt::format("{}/s, read and written", human_bytes(static_cast<std::uint64_t>(rate))),
          {},
          rate};
}

Finding product(config::ComputeType type, int threads) {
  ComputeChoice choice;
  choice.precision = type == config::ComputeType::kBF16 ? kBF16Precision : kF32Precision;
  choice.threads = threads;
  const Backend backend = open_backend(choice);
  const ProductSpeed speed = product_speed(*backend.ops, *backend.memory, kProductSize, kProductSeconds);
  const std::string name = fmt::format("{} product", name_of(choice.precision.activation));
  const std::string text =
      fmt::format("{:.0f} GFLOP/s with {} thread{}", speed.rate * 1e-9, threads, threads == 1 ? "" : "s");
  if (speed.error <= product_tolerance(choice.precision.activation)) return {name, Verdict::kOk, text, {}, speed.rate};
  return {name, Verdict::kBroken, fmt::format("{}, but the result is wrong by {:.1e}", text, speed.error),
          "run lomu verify and report what it says", speed.rate};
}

}  // namespace

Section examine_speed(Communicator& comm) {
  const int threads = share_of_cores(comm);
  Section section{"speed", {}};
  comm.barrier("measuring together");
  section.findings.push_back(copy(threads, comm.local_size()));
  comm.barrier("measuring together");
  section.findings.push_back(product(config::ComputeType::kF32, threads));
  if (cpu_has_fast_bf16()) section.findings.push_back(product(config::ComputeType::kBF16, threads));
  return section;
}

}  // namespace lomu

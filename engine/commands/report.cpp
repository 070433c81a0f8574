#include "engine/commands/report.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <new>
#include <optional>
#include <thread>

#include "engine/config/problems.h"

namespace lomu {
namespace {

// Every rank makes the same usage mistake, and the launcher ends the others as soon as rank 0 has told it. One that is
// still alive after this long has a mistake of its own, such as a file missing on its machine.
constexpr std::chrono::milliseconds kRankZeroSpeaksFirst{1500};

std::optional<int> environment_number(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return {};
  const std::string_view digits(text);
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) return {};
  return number;
}

std::string prefix(LaunchRank rank) {
  return rank.world > 1 ? fmt::format("lomu: rank {}: ", rank.rank) : "lomu: ";
}

std::string paragraph(std::string_view what, std::string_view where, std::string_view hint, LaunchRank rank,
                      const Style& style) {
  std::string text = fmt::format("{}{} {}\n", prefix(rank), style.red("error:"), what);
  if (!where.empty()) text += fmt::format("  {} {}\n", style.dim("where:"), where);
  if (!hint.empty()) text += fmt::format("  {} {}\n", style.dim("hint:"), hint);
  return text;
}

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

int tell(const Error& error, LaunchRank rank) {
  if (error.exit() == Exit::kUsage && rank.rank > 0) std::this_thread::sleep_for(kRankZeroSpeaksFirst);
  print(error_text(error, rank, style_for(stderr)));
  return static_cast<int>(error.exit());
}

}  // namespace

LaunchRank launch_rank() {
  using Names = std::array<const char*, 2>;
  constexpr std::array<Names, 3> kLaunchers = {Names{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                               Names{"PMI_RANK", "PMI_SIZE"}, Names{"SLURM_PROCID", "SLURM_NTASKS"}};
  for (const auto& [rank_name, world_name] : kLaunchers) {
    const auto rank = environment_number(rank_name);
    const auto world = environment_number(world_name);
    if (rank && world && *rank >= 0 && *rank < *world) return {*rank, *world};
  }
  return {};
}

std::string error_text(const Error& error, LaunchRank rank, const Style& style) {
  const auto* config = dynamic_cast<const config::ConfigError*>(&error);
  if (config == nullptr) return paragraph(error.what(), error.where(), error.hint(), rank, style);
  std::string text;
  for (const auto& problem : config->problems()) {
    text += paragraph(problem.what, problem.where, problem.hint, rank, style);
  }
  return text;
}

int report(std::exception_ptr failure, LaunchRank rank) noexcept {
  try {
    try {
      std::rethrow_exception(std::move(failure));
    } catch (const Error& error) {
      return tell(error, rank);
    } catch (const std::bad_alloc&) {
      return tell(
          Error("out of memory", "", "use a smaller training.micro_batch_tokens or fewer ranks on this machine"), rank);
    } catch (const std::exception& error) {
      return tell(Error(fmt::format("unexpected failure: {}", error.what()), "",
                        "this is a mistake of the program: please report it with the command that led to it"),
                  rank);
    }
  } catch (...) {
    std::fputs("lomu: error: unexpected failure without a message\n", stderr);
    return static_cast<int>(Exit::kFailed);
  }
}

}  // namespace lomu

// What a run folder says of its run: configuration, steps and result as they lie in config.yaml, metrics.jsonl and
// summary.json. Reads runs that have finished, that go on, and that were ended.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lomu {

/// The numbers of one step by their names in metrics.jsonl.
using Numbers = std::map<std::string, double, std::less<>>;

struct HistoryPair {
  std::string name;
  Numbers figures;
};

struct HistoryStep {
  std::int64_t step = 0;
  Numbers numbers;                 ///< "loss", "lr" and so on
  std::vector<HistoryPair> pairs;  ///< where telemetry was on
};

struct RunHistory {
  std::filesystem::path folder;
  std::map<std::string, std::string> config;   ///< "optimizer.lr" -> "0.01"
  std::vector<HistoryStep> steps;              ///< at least one
  std::map<std::string, std::string> summary;  ///< "peak_bytes" -> "12345"; empty where the run has not ended
};

/// The number after "layers." in the name of a pair; nothing where there is none.
std::optional<int> layer_of(std::string_view name);

/// Throws UsageError where `folder` holds no run or one without a step, FormatError naming file and line for what
/// cannot be read, except a last line that was cut.
RunHistory read_run(const std::filesystem::path& folder);

}  // namespace lomu

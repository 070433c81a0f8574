// metrics.jsonl: one JSON object a step, appended and flushed as the step ends, so that a killed run keeps its history.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "engine/optimizers/pair_figures.h"

namespace lomu {

/// Telemetry of one pair.
struct NamedFigures {
  std::string name;
  PairFigures figures;
};

struct StepMetrics {
  std::int64_t step = 0;
  double epoch = 0;
  double loss = 0;  ///< mean over the supervised tokens of the step
  double lr = 0;
  std::uint64_t tokens = 0;  ///< of the step, all ranks
  std::uint64_t supervised = 0;
  double tokens_per_second = 0;
  double seconds = 0;            ///< whole step
  double optimizer_seconds = 0;  ///< reduce, step and gather
  double grad_norm = 0;
  double update_norm = 0;
  double max_relative_step = 0;
  std::int64_t cholesky_raises = 0;
  std::optional<double> validation_loss;  ///< after this step
  std::vector<NamedFigures> pairs;        ///< at the steps of telemetry.every
};

class MetricsFile {
 public:
  /// Losses of the first and the last step in the file.
  struct Losses {
    double first = 0;
    double last = 0;
  };

  /// Opens for appending; lines of steps after `last_step` are dropped first (a run resumed from a checkpoint repeats
  /// them), and so is a last line that was cut. Throws FileError.
  MetricsFile(const std::filesystem::path& path, std::int64_t last_step);

  /// Of the steps before this part of a run; nothing in a new run.
  [[nodiscard]] const std::optional<Losses>& earlier() const { return earlier_; }

  /// Throws FileError, for example on a full disk.
  void append(const StepMetrics& metrics);

 private:
  std::filesystem::path path_;
  std::optional<Losses> earlier_;
  std::ofstream out_;
};

}  // namespace lomu

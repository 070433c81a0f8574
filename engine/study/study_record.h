// What a run of a study came to: one object a line in results.jsonl, and one small file a run, so that a study that was
// interrupted knows what is done.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/study/layer_figures.h"
#include "engine/study/study_runs.h"

namespace lomu {

struct StudyRecord {
  std::string id;
  std::string variant;
  std::map<std::string, std::string> at;
  std::string failure;                    ///< why there is no result; empty: there is one
  bool diverged = false;                  ///< it failed because numbers stopped being finite
  std::optional<double> validation_loss;  ///< at the end
  double training_loss = 0;               ///< mean of the last tenth of the steps
  double seconds = 0;
  double tokens_per_second = 0;
  std::uint64_t tokens = 0;
  std::vector<LayerFigures> telemetry;  ///< where it was on

  /// The value of the axis `key` here; empty where the study has no such axis.
  [[nodiscard]] std::string place(const std::string& key) const;

  /// The study's metric; nothing for a run without one.
  [[nodiscard]] std::optional<double> value(const std::string& metric) const;
};

/// The record of a finished run of exactly this configuration, comments aside; nothing if there is none, or it is
/// damaged.
std::optional<StudyRecord> read_record(const StudyRun& run);

/// Reads what a run has left (`exit_code`, summary, metrics, the end of its log), keeps its record, and removes its
/// folder. Throws FileError.
StudyRecord finish_record(const StudyRun& run, int exit_code);

/// Where a run under way is, from its log: "step 166/500  loss 2.4003", or "starting".
std::string progress_of(const StudyRun& run);

/// Where the log of a run goes.
std::filesystem::path log_of(const StudyRun& run);
/// Where its configuration is.
std::filesystem::path config_of(const StudyRun& run);

/// One line.
std::string to_json(const StudyRecord& record);

}  // namespace lomu

// A study as its YAML file says it: a training job, and a section `study` with the axes over which it is repeated and
// the question that the runs answer. Knows no runs: study_runs.h makes them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace lomu {

/// A key of the job and the values it takes, as they would be written on the command line.
struct StudyAxis {
  std::string key;
  std::vector<std::string> values;
};

/// One curve of the page: settings of its own, and values that replace those of the axes.
struct StudyVariant {
  std::string name;
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<StudyAxis> axes;
};

/// What the page says of the runs.
enum class StudyQuestion : std::uint8_t {
  kTransfer,    ///< does the best value of `x` stand still along `lines`, and what is lost by keeping it?
  kInvariance,  ///< how far does the result move along `x`?
  kSpectra,     ///< what does the momentum look like, over training, by depth, along `x`? Needs telemetry
};

struct Study {
  std::filesystem::path file;
  std::string job;    ///< the YAML text without the section `study`, line by line where it was
  std::string claim;  ///< one or two sentences: what the study is to show or refute
  StudyQuestion question = StudyQuestion::kTransfer;
  std::string metric;  ///< "validation_loss" or "training_loss"
  std::string x;       ///< key of the axis of the plots
  std::string lines;   ///< key of the axis with a curve each; empty: one curve
  std::string repeat;  ///< key of the axis over which medians are taken; empty: single runs
  std::vector<StudyAxis> axes;
  std::vector<StudyVariant> variants;  ///< at least one
};

/// The last word of a key, by which plots, tables and names of runs call it: "lr" of "optimizer.lr".
std::string short_name(const std::string& key);

/// Reads a study. `quick`: with what its section `study.quick` puts in place of settings and axes, for minutes instead
/// of hours. Throws UsageError naming file, line and key; what is wrong in the job itself is found when its runs are
/// made.
Study read_study(const std::filesystem::path& file, bool quick);

}  // namespace lomu

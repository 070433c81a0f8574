// The runs of a study: every combination of the values of its axes, for every variant, as jobs of their own.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/study/study_file.h"

namespace lomu {

struct StudyRun {
  std::string id;  ///< names its folder: "lora_muon,rank=2,lr=0.03,seed=0"
  std::string variant;
  std::map<std::string, std::string> at;  ///< key of each axis -> its value here
  std::filesystem::path folder;
  std::string config;  ///< resolved: a job that `lomu train` runs as it is
};

/// In the order of the axes, the last fastest, so that the repeats of one point come together. `settings`: key=value
/// for every run, stronger than what the study says. Every run is checked as a job; throws
/// what config::parse_config throws, with the run's name.
std::vector<StudyRun> runs_of(const Study& study, const std::filesystem::path& out,
                              std::span<const std::string> settings);

}  // namespace lomu

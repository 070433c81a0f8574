// What models wrote for records of a run's data, before and after it, as the page of runs shows it. Text alone: who
// asks the models is make_samples.h.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lomu {

/// A record and what became of it.
struct Sample {
  std::string prompt;
  std::string wanted;                 ///< how the record itself goes on
  std::optional<std::string> before;  ///< of the base model alone; none where there is none
  std::optional<std::string> after;   ///< of what the run has made
};

/// Why something is not there: a sentence, the file or the like that it is about, what to do. The last two may be
/// empty.
struct MissingSample {
  std::string what;
  std::string where;
  std::string hint;
};

struct RunSamples {
  std::string source;  ///< a sentence: which records these are
  std::vector<Sample> samples;
  std::vector<std::string> notes;  ///< sentences: what the reader should know
  std::vector<MissingSample> missing;
};

/// As HTML, a table for each run; `names` of the runs.
std::string samples_section(std::span<const RunSamples> runs, std::span<const std::string> names);

}  // namespace lomu

// What the telemetry of a study's runs says about the spectra of momentum: over training, by depth, along the axis x.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/study/study_file.h"
#include "engine/study/study_record.h"

namespace lomu {

/// One sentence for each variant and value of x, and one for each variant about how the spectrum goes with x. Medians
/// over repeats and layers.
std::vector<std::string> spectra_sentences(const Study& study, std::span<const StudyRecord> records);

/// How the factors and their product have grown: for each variant and value of x, at the first and the last look. Empty
/// without telemetry of pairs.
std::string growth_section(const Study& study, std::span<const StudyRecord> records);

/// Tables of quantiles at the first, the middle and the last look, and maps of layer against step.
std::string spectra_section(const Study& study, std::span<const StudyRecord> records);

}  // namespace lomu

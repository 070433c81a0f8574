// The page of a study: one HTML file with plots, tables, the verdict in words and the exact job. No network, no script.
#pragma once

#include <span>
#include <string>

#include "engine/study/study_file.h"
#include "engine/study/study_record.h"

namespace lomu {

/// `provenance`: where the numbers come from (program, machine, date), for the foot of the page.
std::string page_of(const Study& study, std::span<const StudyRecord> records, const std::string& provenance);

/// The verdict alone, a sentence a line, for the terminal.
std::string verdict_of(const Study& study, std::span<const StudyRecord> records);

}  // namespace lomu

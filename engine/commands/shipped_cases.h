// Where the reference cases lie that come with the program.
#pragma once

#include <filesystem>

namespace lomu {

/// The folder with `models`, `lora_muon` and `tokenizer`: $LOMU_CASES if that is set; else share/lomu/cases beside the
/// bin folder of an installed program; else tests/data of the source tree this program was built from.
/// Throws FileError when none is there.
std::filesystem::path shipped_cases();

}  // namespace lomu

// What `lomu generate --score` prints: the share of exact answers, and some of them side by side.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/commands/answer_file.h"
#include "engine/config/terminal.h"

namespace lomu {

/// "exact answers: 187 of 200 (93.5 %)", and the figure of the earlier run where there is one.
std::string score_text(std::span<const AnsweredRecord> records, std::span<const AnsweredRecord> earlier,
                       const Style& style);

/// `count` records spread over all, each with its prompt and, beside each other as far as `width` allows, the expected
/// answer, the earlier run's (if `earlier` is not empty; it then has as many entries) and this run's.
std::string samples_text(std::span<const AnsweredRecord> records, std::span<const AnsweredRecord> earlier,
                         std::size_t count, std::size_t width, const Style& style);

/// Lines of at most `width` columns; line ends in the text are kept, words that are too long are cut. At least one.
std::vector<std::string> fold(std::string_view text, std::size_t width);

}  // namespace lomu

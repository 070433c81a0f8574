// `lomu generate --file`: answers every record of a JSONL file and compares the answers with the expected ones.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/commands/generate.h"
#include "engine/session/model_session.h"
#include "kernels/error.h"

namespace lomu {

/// One record and what became of it.
struct AnsweredRecord {
  std::string prompt;                   ///< the last thing said before the answer
  std::optional<std::string> expected;  ///< none where the record ends without an answer
  std::string got;
  bool exact = false;  ///< equal to what was expected, but for white space at the ends
};

/// Opens the session, once the file has been read. Throws what parse_record throws, with "PATH:LINE", and FormatError
/// for a record of plain text alone, which holds nothing to ask for.
Exit answer_file(const GenerateOptions& options, const SessionOptions& model);

/// One JSON object a line, keys prompt, expected (null: none), got, exact (null: none). Whole or not at all.
void write_answers(const std::filesystem::path& path, const std::vector<AnsweredRecord>& records);
/// The way back. Throws FileError, FormatError.
std::vector<AnsweredRecord> read_answers(const std::filesystem::path& path);

}  // namespace lomu

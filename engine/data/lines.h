// A text file cut into lines, without copying. For JSONL files of any size: the file is mapped, and a line may be as
// long as the file. Not for files that change while they are read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "models/files/mapped_file.h"

namespace lomu {

struct Line {
  std::uint64_t number = 0;  ///< from 1
  std::string_view text;     ///< without its line end (LF or CRLF); valid as long as the file is
};

/// Hands out the lines one after another. A UTF-8 byte order mark at the start is left out; so is what follows the last
/// line end when it is empty.
class LineReader {
 public:
  /// Throws FormatError when the file is UTF-16 or UTF-32, by its byte order mark or its first bytes. The file must
  /// outlive this.
  explicit LineReader(const MappedFile& file);

  /// The next line, or nothing at the end.
  std::optional<Line> next();

 private:
  std::string_view rest_;
  std::uint64_t number_ = 0;
};

/// True when there is nothing but spaces and tabs.
bool is_blank(std::string_view line);

}  // namespace lomu

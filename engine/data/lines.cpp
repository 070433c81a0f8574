#include "engine/data/lines.h"

#include "kernels/error.h"

namespace lomu {

LineReader::LineReader(const MappedFile& file)
    : rest_(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()) {
  using namespace std::string_view_literals;
  // JSON begins with an ASCII character, so in UTF-16 and UTF-32 one of the first two bytes is zero even without a
  // mark.
  const bool zero_byte = rest_.size() >= 2 && (rest_[0] == '\0' || rest_[1] == '\0');
  if (rest_.starts_with("\xFF\xFE"sv) || rest_.starts_with("\xFE\xFF"sv) || zero_byte) {
    throw FormatError("the file is not UTF-8 text but looks like UTF-16 or UTF-32", file.path().string(),
                      "convert it, for example: iconv -f UTF-16 -t UTF-8 old.jsonl > new.jsonl");
  }
  if (rest_.starts_with("\xEF\xBB\xBF"sv)) rest_.remove_prefix(3);
}

std::optional<Line> LineReader::next() {
  if (rest_.empty()) return std::nullopt;
  const std::size_t end = rest_.find('\n');
  std::string_view text = rest_.substr(0, end);
  rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return Line{++number_, text};
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\v\f") == std::string_view::npos;
}

}  // namespace lomu

// Text for people: colours where a terminal shows them, and numbers, bytes and times at a glance.
// Nothing here decides what is printed; files and JSON never go through it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace lomu {

/// True if `stream` is shown on a terminal (not a file or a pipe).
bool is_terminal(std::FILE* stream);

/// Columns of the terminal behind `stream`; COLUMNS if that is set; else 100.
std::size_t terminal_width(std::FILE* stream);

/// Wraps text in colours, or leaves it alone. Copies are cheap.
class Style {
 public:
  explicit Style(bool colour = false) : colour_(colour) {}
  [[nodiscard]] bool colour() const { return colour_; }
  [[nodiscard]] std::string bold(std::string_view text) const { return code("1", text); }
  [[nodiscard]] std::string dim(std::string_view text) const { return code("2", text); }
  [[nodiscard]] std::string red(std::string_view text) const { return code("1;31", text); }
  [[nodiscard]] std::string green(std::string_view text) const { return code("32", text); }
  [[nodiscard]] std::string yellow(std::string_view text) const { return code("33", text); }
  [[nodiscard]] std::string cyan(std::string_view text) const { return code("36", text); }

 private:
  [[nodiscard]] std::string code(std::string_view sgr, std::string_view text) const;
  bool colour_;
};

/// Colours for `stream`: on a terminal that is not "dumb", unless NO_COLOR is set; FORCE_COLOR turns them on anywhere.
Style style_for(std::FILE* stream);

/// 950, 12.3k, 134.5M, 1.24B: three to four digits.
std::string human_count(double count);
/// 512 B, 98.4 MB, 1.43 GB: powers of 1000, as drives and the tables of the documentation are labelled.
std::string human_bytes(std::uint64_t bytes);
/// 0.41 s, 12.3 s, 3 min 12 s, 1 h 04 min, 2 d 03 h. Not finite or negative: "?".
std::string human_duration(double seconds);

/// Columns that UTF-8 text takes, one a character; wide characters and colours are not looked at.
std::size_t display_width(std::string_view text);
/// Lines of at most `width` columns, broken at blanks; a longer word stays whole. At least one line.
std::vector<std::string> wrap(std::string_view text, std::size_t width);

/// Writes to standard output and flushes. False if the reader has gone (a closed pipe: not an error, stop quietly);
/// FileError if it cannot be written for another reason, such as a full disk.
bool write_out(std::string_view text);

}  // namespace lomu

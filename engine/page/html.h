// The frame and the tables of the pages that lomu writes. A page is one file: its style is inside, it has no script,
// and it asks for nothing from elsewhere.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lomu {

/// Text with <, >, & and quotes written as HTML wants them.
std::string escaped(std::string_view text);

/// Everything up to the heading, which is `title`.
std::string page_beginning(std::string_view title);

/// Cells are text, not HTML; one that begins with * is shown bold, without it.
std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows);

/// A table to read: cells are text as it is, with its line ends, and may be long. Control characters are shown as the
/// pictures that Unicode has of them.
std::string text_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows);

}  // namespace lomu

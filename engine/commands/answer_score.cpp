#include "engine/commands/answer_score.h"

#include <fmt/format.h>

#include <algorithm>

namespace lomu {
namespace {

// Narrower columns are no pleasure to read: answers then stand below each other.
constexpr std::size_t kLeastColumn = 28;
constexpr std::size_t kGap = 3;

/// An answer with its name.
struct Cell {
  std::string_view title;
  std::string_view text;
  enum class Mark { kNone, kRight, kWrong } mark = Mark::kNone;
};

std::string coloured(const Cell& cell, std::string_view text, const Style& style) {
  if (cell.mark == Cell::Mark::kRight) return style.green(text);
  if (cell.mark == Cell::Mark::kWrong) return style.red(text);
  return std::string(text);
}

std::string title_of(const Cell& cell) {
  if (cell.mark == Cell::Mark::kNone) return std::string(cell.title);
  return fmt::format("{} ({})", cell.title, cell.mark == Cell::Mark::kRight ? "exact" : "wrong");
}

std::string padding(std::string_view text, std::size_t width) {
  const std::size_t used = display_width(text);
  return std::string(width > used ? width - used : 0, ' ');
}

std::string beside(std::span<const Cell> cells, std::size_t column, const Style& style) {
  std::vector<std::vector<std::string>> lines;
  std::size_t height = 0;
  for (const Cell& cell : cells) {
    lines.push_back(fold(cell.text, column));
    height = std::max(height, lines.back().size());
  }
  std::string text;
  const auto add = [&](std::size_t i, const std::string& plain, const std::string& shown) {
    text += shown;
    text += i + 1 < cells.size() ? padding(plain, column + kGap) : "\n";
  };
  for (std::size_t i = 0; i < cells.size(); ++i) add(i, title_of(cells[i]), style.dim(title_of(cells[i])));
  for (std::size_t row = 0; row < height; ++row) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string line = row < lines[i].size() ? lines[i][row] : "";
      add(i, line, line.empty() ? "" : coloured(cells[i], line, style));
    }
  }
  return text;
}

std::string below(std::span<const Cell> cells, std::size_t width, const Style& style) {
  std::string text;
  for (const Cell& cell : cells) {
    text += style.dim(title_of(cell)) + "\n";
    for (const std::string& line : fold(cell.text, width)) text += coloured(cell, line, style) + "\n";
  }
  return text;
}

Cell::Mark mark_of(const AnsweredRecord& record) {
  if (!record.expected) return Cell::Mark::kNone;
  return record.exact ? Cell::Mark::kRight : Cell::Mark::kWrong;
}

std::string share_text(std::span<const AnsweredRecord> records) {
  const auto asked =
      std::count_if(records.begin(), records.end(), [](const auto& r) { return r.expected.has_value(); });
  const auto exact = std::count_if(records.begin(), records.end(), [](const auto& r) { return r.exact; });
  const double percent = asked == 0 ? 0 : 100.0 * static_cast<double>(exact) / static_cast<double>(asked);
  return fmt::format("{} of {} ({:.1f} %)", exact, asked, percent);
}

}  // namespace

std::vector<std::string> fold(std::string_view text, std::size_t width) {
  std::vector<std::string> lines;
  while (true) {
    const std::size_t end = text.find('\n');
    for (std::string& line : wrap(text.substr(0, end), width)) {
      while (display_width(line) > width) {
        std::size_t cut = 0;
        for (std::size_t columns = 0; columns <= width; ++cut) {
          if ((static_cast<unsigned char>(line[cut]) & 0xC0U) != 0x80U && ++columns > width) break;
        }
        lines.push_back(line.substr(0, cut));
        line.erase(0, cut);
      }
      lines.push_back(std::move(line));
    }
    if (end == std::string_view::npos) return lines;
    text.remove_prefix(end + 1);
  }
}

std::string score_text(std::span<const AnsweredRecord> records, std::span<const AnsweredRecord> earlier,
                       const Style& style) {
  const std::string before = earlier.empty() ? "" : fmt::format(", before {}", share_text(earlier));
  return fmt::format("{} {}{}\n", style.bold("exact answers:"), share_text(records), before);
}

std::string samples_text(std::span<const AnsweredRecord> records, std::span<const AnsweredRecord> earlier,
                         std::size_t count, std::size_t width, const Style& style) {
  std::string text;
  count = std::min(count, records.size());
  for (std::size_t sample = 0; sample < count; ++sample) {
    const std::size_t i = sample * records.size() / count;
    std::vector<Cell> cells;
    if (records[i].expected) cells.push_back({"expected", *records[i].expected});
    if (!earlier.empty()) cells.push_back({"before", earlier[i].got, mark_of(earlier[i])});
    cells.push_back({earlier.empty() ? "got" : "after", records[i].got, mark_of(records[i])});
    for (const std::string& line : fold(records[i].prompt, width)) text += style.bold(line) + "\n";
    const std::size_t gaps = kGap * (cells.size() - 1);
    const std::size_t column = width > gaps ? (width - gaps) / cells.size() : 0;
    text +=
        column >= kLeastColumn ? beside(cells, column, style) : below(cells, std::max<std::size_t>(width, 1), style);
    text += "\n";
  }
  return text;
}

}  // namespace lomu

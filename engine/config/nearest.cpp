#include "engine/config/nearest.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace lomu {
namespace {

constexpr std::size_t kLongestWord = 256;

std::string folded(std::string_view word) {
  std::string out(word.substr(0, kLongestWord));
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return c == '-' ? '_' : static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, kLongestWord);
  b = b.substr(0, kLongestWord);
  std::vector<std::size_t> before(b.size() + 1);  // rows i - 2, i - 1 and i of the table of prefix distances
  std::vector<std::size_t> above(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t changed = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, changed});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

std::optional<std::string> nearest(std::string_view wrong, std::span<const std::string> words) {
  const std::string sought = folded(wrong);
  std::optional<std::string> best;
  std::size_t limit = std::max<std::size_t>(1, sought.size() / 3) + 1;
  for (const std::string& word : words) {
    const std::size_t distance = edit_distance(sought, folded(word));
    if (distance >= limit || distance >= std::max(sought.size(), word.size())) continue;
    limit = distance;
    best = word;
  }
  return best;
}

}  // namespace lomu

// Finds the word a person probably meant. For messages only: nothing is ever corrected silently.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace lomu {

/// Insertions, deletions, substitutions and swaps of neighbours between two words (optimal string alignment), in bytes.
/// O(|a| |b|) time; words longer than 256 bytes are compared by their first 256.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The word of `words` closest to `wrong`, or nothing if all are too far to be what was meant (more than a third of its
/// letters, at least one). Upper and lower case, and - and _, count as equal. The first of several equally close ones.
std::optional<std::string> nearest(std::string_view wrong, std::span<const std::string> words);

}  // namespace lomu

#include "kernels/cuda/attention_groups.h"

#include <algorithm>
#include <bit>

namespace lomu::cuda {
namespace {

/// Shorter sequences take a block of this many rows all the same.
constexpr std::int64_t kShortest = 128;
/// A launch of more has work for every multiprocessor, and more kinds of graphs would be of no use.
constexpr std::int64_t kMostSequences = 64;
/// Scratch memory of a backward pass grows with a group's tokens, so several sequences together have no more; that is
/// enough work for any GPU.
constexpr std::int64_t kMostTokens = 16384;
/// Where the memory grows with a group's rectangle, sequences times longest (cuDNN on 8.x), one long document must not
/// make short ones expensive: several together fill a quarter of theirs, and it is no larger than this.
constexpr std::int64_t kFilled = 4;
constexpr std::int64_t kLargestRectangle = 2 * kMostTokens;

std::int64_t power_of_two(std::int64_t n) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n)));
}

AttentionGroup group_of(std::span<const std::int32_t> lengths, std::int64_t first_row) {
  AttentionGroup group;
  group.first_row = first_row;
  group.lengths.assign(lengths.begin(), lengths.end());
  for (const std::int64_t n : lengths) group.tokens += n;
  group.max_length = power_of_two(std::max<std::int64_t>(kShortest, *std::max_element(lengths.begin(), lengths.end())));
  group.max_tokens = std::min(power_of_two(std::max(kShortest, group.tokens)),
                              static_cast<std::int64_t>(lengths.size()) * group.max_length);
  return group;
}

bool is_good(const AttentionGroup& group) {
  if (group.lengths.size() == 1) return true;
  std::int64_t filled = 0;
  for (const std::int64_t n : group.lengths) filled += std::max(n, kShortest);
  const std::int64_t rectangle = static_cast<std::int64_t>(group.lengths.size()) * group.max_length;
  return group.tokens <= kMostTokens && rectangle <= std::min(kFilled * filled, kLargestRectangle);
}

}  // namespace

AttentionGroupBounds bounds_of_groups(std::int64_t rows, std::int64_t document) {
  const std::int64_t longest = power_of_two(std::max(kShortest, document));
  AttentionGroupBounds bounds;
  bounds.tokens = std::min(rows, std::max(kMostTokens, document));
  bounds.max_tokens = std::min(power_of_two(std::max(kShortest, rows)), std::max(kMostTokens, longest));
  bounds.rectangle = std::max(kLargestRectangle, longest);
  return bounds;
}

std::vector<AttentionGroup> group_sequences(std::span<const SequenceSpan> sequences, std::int64_t rows) {
  std::vector<std::int32_t> lengths;
  std::int64_t covered = 0;
  for (const SequenceSpan& s : sequences) {
    if (s.query_begin != s.key_begin || s.query_length != s.key_length) return {};
    if (s.query_length == 0) continue;
    if (s.query_begin != covered) return {};
    lengths.push_back(static_cast<std::int32_t>(s.query_length));
    covered += s.query_length;
  }
  if (covered != rows) return {};

  std::vector<AttentionGroup> groups;
  std::int64_t row = 0;
  for (std::span<const std::int32_t> rest(lengths); !rest.empty();) {
    auto count = static_cast<std::size_t>(kMostSequences);
    while (count > rest.size()) count /= 2;
    AttentionGroup group = group_of(rest.first(count), row);
    for (; !is_good(group); count /= 2) group = group_of(rest.first(count / 2), row);
    row += group.tokens;
    rest = rest.subspan(group.lengths.size());
    groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace lomu::cuda

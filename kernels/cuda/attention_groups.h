// A packed batch cut into groups of neighbouring sequences that a library's graphs can take: a graph is made for a
// fixed number of sequences of a bounded length, and making one takes long, so only a few kinds may occur.
//
// Counts are exact powers of two rather than one large count with empty slots: cuDNN before 9.25 does not promise right
// results for sequences of length 0, and sequences of length 1 in their place would need spare rows, which a batch does
// not have. Thirteen documents are groups of 8, 4 and 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace lomu::cuda {

struct AttentionGroup {
  std::int64_t first_row = 0;
  std::int64_t tokens = 0;
  std::vector<std::int32_t> lengths;  ///< of its sequences, none of them 0
  std::int64_t max_length = 0;        ///< a power of two that holds the longest
  std::int64_t max_tokens = 0;        ///< a power of two that holds them all, at most lengths.size() * max_length
};

/// What groups of batches up to some size come to at most.
struct AttentionGroupBounds {
  std::int64_t tokens = 0;      ///< AttentionGroup::tokens
  std::int64_t max_tokens = 0;  ///< AttentionGroup::max_tokens
  std::int64_t rectangle = 0;   ///< sequences times max_length
};
/// rows: of a batch; document: its longest sequence.
AttentionGroupBounds bounds_of_groups(std::int64_t rows, std::int64_t document);

/// Groups in the order of the rows. Empty when the batch is none that graphs can take: queries and keys are not the
/// same rows (a cache), sequences leave rows out or are not in order, or there are no rows.
std::vector<AttentionGroup> group_sequences(std::span<const SequenceSpan> sequences, std::int64_t rows);

}  // namespace lomu::cuda

// Who owns which adapter pair: the owner reduces its gradients, keeps its momentum, steps it, and hands its factors
// out. A plan is nothing but segments of the flat buffer for each rank, so that a plan by rows can stand beside this
// one.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace lomu {

/// A contiguous run of floats of the flat buffer.
struct Segment {
  std::size_t begin = 0;
  std::size_t count = 0;
  friend bool operator==(const Segment&, const Segment&) = default;
};

/// An adapter pair and its place in the flat buffer: lora_A [r, n] then lora_B [m, r], (m + n) r floats from `offset`.
struct PairShape {
  std::string name;
  std::size_t m = 0;  ///< out features
  std::size_t n = 0;  ///< in features
  std::size_t r = 0;  ///< rank of the adapter
  std::size_t offset = 0;
  [[nodiscard]] std::size_t floats() const noexcept { return (m + n) * r; }
};

/// Sets the offsets so that pairs follow each other without gaps; returns the length of the flat buffer.
/// Throws UsageError, naming the pair, when a dimension is 0 or the length overflows.
std::size_t lay_out(std::span<PairShape> pairs);

struct ShardPlan {
  std::vector<int> owner;                       ///< by pair
  std::vector<std::vector<std::size_t>> pairs;  ///< by rank, ascending: the pairs it owns; may be empty
  std::vector<std::vector<Segment>> segments;   ///< by rank, ascending, neighbours merged
};

/// Whole pairs: largest first to the least loaded rank, by the cost (m + n) r^2 of an optimizer step. Equal costs keep
/// the order of `pairs`; equal loads take the lowest rank. Any number of ranks >= 1 (UsageError otherwise).
ShardPlan shard_by_pair(std::span<const PairShape> pairs, int ranks);

}  // namespace lomu

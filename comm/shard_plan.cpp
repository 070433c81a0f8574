#include "comm/shard_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "kernels/error.h"

namespace lomu {

std::size_t lay_out(std::span<PairShape> pairs) {
  constexpr std::size_t kMostFloats = std::numeric_limits<std::size_t>::max() / sizeof(float);
  std::size_t length = 0;
  for (PairShape& pair : pairs) {
    if (pair.m == 0 || pair.n == 0 || pair.r == 0) {
      throw UsageError(fmt::format("an adapter pair of {} x {} and rank {} is empty", pair.m, pair.n, pair.r),
                       pair.name);
    }
    std::size_t sides = 0;
    std::size_t floats = 0;
    std::size_t end = 0;
    if (__builtin_add_overflow(pair.m, pair.n, &sides) || __builtin_mul_overflow(sides, pair.r, &floats) ||
        __builtin_add_overflow(length, floats, &end) || end > kMostFloats) {
      throw UsageError(
          fmt::format("adapter pairs up to {} x {} with rank {} exceed the address space", pair.m, pair.n, pair.r),
          pair.name);
    }
    pair.offset = length;
    length = end;
  }
  return length;
}

ShardPlan shard_by_pair(std::span<const PairShape> pairs, int ranks) {
  if (ranks < 1) throw UsageError(fmt::format("{} ranks: at least 1 is needed", ranks));
  const auto world = static_cast<std::size_t>(ranks);
  // In double: exact up to 2^53, and beyond that still the same numbers on every rank.
  const auto cost = [&](std::size_t i) {
    const auto r = static_cast<double>(pairs[i].r);
    return (static_cast<double>(pairs[i].m) + static_cast<double>(pairs[i].n)) * r * r;
  };
  std::vector<std::size_t> order(pairs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return cost(a) > cost(b); });

  using Load = std::pair<double, std::size_t>;  // load, rank: equal loads take the lowest rank
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (std::size_t rank = 0; rank < world; ++rank) loads.emplace(0.0, rank);
  ShardPlan plan;
  plan.owner.resize(pairs.size());
  for (const std::size_t i : order) {
    const auto [load, rank] = loads.top();
    loads.pop();
    plan.owner[i] = static_cast<int>(rank);
    loads.emplace(load + cost(i), rank);
  }

  plan.pairs.resize(world);
  plan.segments.resize(world);
  for (std::size_t i = 0; i < pairs.size(); ++i) plan.pairs[static_cast<std::size_t>(plan.owner[i])].push_back(i);
  for (std::size_t rank = 0; rank < world; ++rank) {
    std::vector<Segment>& segments = plan.segments[rank];
    for (const std::size_t i : plan.pairs[rank]) segments.push_back({pairs[i].offset, pairs[i].floats()});
    std::sort(segments.begin(), segments.end(), [](const Segment& a, const Segment& b) { return a.begin < b.begin; });
    std::vector<Segment> merged;
    for (const Segment& segment : segments) {
      if (!merged.empty() && merged.back().begin + merged.back().count == segment.begin) {
        merged.back().count += segment.count;
      } else {
        merged.push_back(segment);
      }
    }
    segments = std::move(merged);
  }
  return plan;
}

}  // namespace lomu

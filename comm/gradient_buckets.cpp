#include "comm/gradient_buckets.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "kernels/error.h"

namespace lomu {
namespace {

void check_layout(std::span<const PairShape> pairs) {
  std::size_t at = 0;
  for (const PairShape& pair : pairs) {
    if (pair.offset != at || pair.floats() == 0) {
      throw UsageError(fmt::format("a pair of {} floats at {} where {} is next", pair.floats(), pair.offset, at),
                       pair.name);
    }
    at += pair.floats();
  }
}

// Where bucket b of n should end: all but the last have two shares of 2 n - 1. In double, whose 53 bits are far finer
// than a pair.
std::size_t wanted_end(std::size_t length, std::size_t b, std::size_t n) {
  if (b + 1 == n) return length;
  return static_cast<std::size_t>(static_cast<double>(length) * 2.0 * static_cast<double>(b + 1) /
                                  static_cast<double>(2 * n - 1));
}

// The pairs of each bucket: a boundary goes to the end of a pair nearest to where it is wanted, and every bucket keeps
// at least one pair.
std::vector<GradientBucket> cut(std::span<const PairShape> pairs, std::size_t length, std::size_t count) {
  std::vector<GradientBucket> buckets;
  std::size_t pair = 0;
  for (std::size_t b = 0; b < count; ++b) {
    GradientBucket bucket;
    bucket.first_pair = pair;
    bucket.flat.begin = pairs[pair].offset;
    const std::size_t wanted = wanted_end(length, b, count);
    const std::size_t pairs_for_others = count - 1 - b;
    std::size_t end = 0;
    do {
      end = pairs[pair].offset + pairs[pair].floats();
      ++pair;
      // The next pair is taken if more than half of it lies before the wanted end.
    } while (pair + pairs_for_others < pairs.size() && end + pairs[pair].floats() / 2 < wanted);
    bucket.end_pair = pair;
    bucket.flat.count = end - bucket.flat.begin;
    buckets.push_back(std::move(bucket));
  }
  // The last one takes what rounding left.
  buckets.back().end_pair = pairs.size();
  buckets.back().flat.count = length - buckets.back().flat.begin;
  return buckets;
}

void add_segment(std::vector<Segment>& segments, const Segment& segment) {
  if (!segments.empty() && segments.back().begin + segments.back().count == segment.begin) {
    segments.back().count += segment.count;
  } else {
    segments.push_back(segment);
  }
}

}  // namespace

BucketPlan plan_buckets(std::span<const PairShape> pairs, int ranks, const BucketOptions& options) {
  if (ranks < 1) throw UsageError(fmt::format("{} ranks: at least 1 is needed", ranks));
  if (options.most < 1) throw UsageError("a plan of no buckets");
  check_layout(pairs);
  const auto world = static_cast<std::size_t>(ranks);
  BucketPlan plan;
  plan.shards.owner.resize(pairs.size());
  plan.shards.pairs.resize(world);
  plan.shards.segments.resize(world);
  if (pairs.empty()) return plan;
  plan.length = pairs.back().offset + pairs.back().floats();

  const std::size_t worth = plan.length * sizeof(float) / std::max<std::size_t>(options.least_bytes, 1);
  const std::size_t count = std::clamp<std::size_t>(worth, 1, std::min(options.most, pairs.size()));
  plan.buckets = cut(pairs, plan.length, count);

  std::vector<double> work(world, 0.0);  // of the optimizer: (m + n) r^2 a pair
  for (GradientBucket& bucket : plan.buckets) {
    std::vector<std::size_t> order(bucket.end_pair - bucket.first_pair);
    std::iota(order.begin(), order.end(), bucket.first_pair);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return pairs[a].floats() > pairs[b].floats(); });
    std::vector<std::size_t> held(world, 0);
    for (const std::size_t i : order) {
      std::size_t owner = 0;
      for (std::size_t rank = 1; rank < world; ++rank) {
        if (std::tie(held[rank], work[rank]) < std::tie(held[owner], work[owner])) owner = rank;
      }
      plan.shards.owner[i] = static_cast<int>(owner);
      held[owner] += pairs[i].floats();
      work[owner] += static_cast<double>(pairs[i].floats()) * static_cast<double>(pairs[i].r);
    }
    bucket.segments.resize(world);
    for (std::size_t i = bucket.first_pair; i < bucket.end_pair; ++i) {
      const auto owner = static_cast<std::size_t>(plan.shards.owner[i]);
      const Segment segment{pairs[i].offset, pairs[i].floats()};
      plan.shards.pairs[owner].push_back(i);
      add_segment(plan.shards.segments[owner], segment);
      add_segment(bucket.segments[owner], segment);
    }
  }
  return plan;
}

void OverlapSchedule::begin(std::size_t micro_batches) {
  micro_batches_ = micro_batches;
  micro_batch_ = 0;
  next_pair_ = 0;
  next_bucket_ = 0;
}

Block OverlapSchedule::passed(std::size_t index, std::size_t pair) {
  if (index != micro_batch_ || index >= micro_batches_ || pair != next_pair_) {
    throw Error(fmt::format("backward passed pair {} of micro-batch {} where pair {} of micro-batch {} of {} is next",
                            pair, index, next_pair_, micro_batch_, micro_batches_));
  }
  ++next_pair_;
  const bool last = index + 1 == micro_batches_;
  if (next_pair_ == plan_.shards.owner.size()) {
    next_pair_ = 0;
    ++micro_batch_;
  }
  const std::size_t from = next_bucket_;
  if (last && from < plan_.buckets.size() && plan_.buckets[from].end_pair == pair + 1) ++next_bucket_;
  return {from, next_bucket_};
}

Block OverlapSchedule::at_once() const {
  return {0, micro_batches_ == 0 ? plan_.buckets.size() : 0};
}

bool OverlapSchedule::complete() const {
  return micro_batches_ == 0 || next_bucket_ == plan_.buckets.size();
}

}  // namespace lomu

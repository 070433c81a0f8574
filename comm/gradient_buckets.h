// How the flat gradient is cut into a few buckets so that reducing it can begin before backward has ended, who owns
// which pair when ranks should have equal shares of every bucket, and when each bucket may go. Host arithmetic only: it
// moves nothing. comm/bucket_reducer.h moves the buckets.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "comm/reduction_tree.h"
#include "comm/shard_plan.h"

namespace lomu {

struct BucketOptions {
  /// A bucket costs one start of a collective, about 30 us among 8 GPUs of one machine; at 300 GB/s this many bytes
  /// take as long. Smaller buckets would spend more time starting than moving. (Arithmetic, not a measurement.)
  std::size_t least_bytes = std::size_t{8} << 20;
  /// More buckets hide little more: what stays visible is the last one.
  std::size_t most = 4;
};

/// A run of the flat buffer that is reduced, and later gathered, in one go.
struct GradientBucket {
  Segment flat;
  std::size_t first_pair = 0;
  std::size_t end_pair = 0;                    ///< one past its last pair
  std::vector<std::vector<Segment>> segments;  ///< by rank, ascending, neighbours merged: what the rank owns of it
};

struct BucketPlan {
  ShardPlan shards;  ///< of the whole flat buffer: what the optimizer asks
  std::vector<GradientBucket> buckets;
  std::size_t length = 0;  ///< floats of the flat buffer
};

/// `pairs` in the order in which backward finishes them, laid out without gaps in that order (lay_out). Buckets follow
/// that order and hold whole pairs. There are as many as have `least_bytes`, at least 1 and at most `most`; the last,
/// which backward cannot hide, is half as large as the others, as far as whole pairs allow. Inside a bucket pairs are
/// given away largest first to the rank with the fewest floats of it, among equals to the one with the least optimizer
/// work so far, then to the lowest: so two ranks' shares of a bucket differ by its largest pair at most.
/// No pairs give no buckets. Throws UsageError for ranks < 1, most < 1, or a layout with gaps.
BucketPlan plan_buckets(std::span<const PairShape> pairs, int ranks, const BucketOptions& options = {});

/// Says when buckets may be sent during one step. All ranks send them in plan order, which collectives demand; the
/// moment is each rank's own.
class OverlapSchedule {
 public:
  /// `plan` outlives this.
  explicit OverlapSchedule(const BucketPlan& plan) : plan_(plan) {}

  /// A step begins on a rank with `micro_batches` of its own.
  void begin(std::size_t micro_batches);
  /// Backward of the rank's `index`-th micro-batch (from 0) has finished `pair`. Returns the buckets that may go now:
  /// half-open, in plan order, empty for all but the last micro-batch. Throws Error unless pairs and micro-batches
  /// come in order.
  Block passed(std::size_t index, std::size_t pair);
  /// The buckets of a rank without micro-batches, which may all go at once; empty for any other rank.
  [[nodiscard]] Block at_once() const;
  /// Whether every bucket of the step may go or has gone.
  [[nodiscard]] bool complete() const;

 private:
  const BucketPlan& plan_;
  std::size_t micro_batches_ = 0;
  std::size_t micro_batch_ = 0;  ///< the one in backward now
  std::size_t next_pair_ = 0;
  std::size_t next_bucket_ = 0;
};

}  // namespace lomu

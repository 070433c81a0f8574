// Reduces the gradient on devices bucket by bucket to the owners of its pairs, and gathers the updated factors: what
// gradient_reducer.h does for host memory. In tree order only this project's own kernel adds, in the order of
// reduction_tree.h, so the sums are the same bits for any number of ranks; in the library's order NCCL adds as it
// pleases, which moves less. It plans messages and queues work; the transport moves and adds.
#pragma once

#include <span>
#include <vector>

#include "comm/device_transport.h"
#include "comm/gradient_buckets.h"
#include "comm/reduction_tree.h"

namespace lomu {

enum class AdditionOrder { kTree, kLibrary };

class BucketReducer {
 public:
  /// Device memory that rank `rank` needs, in floats.
  static std::size_t workspace_floats(const BucketPlan& buckets, const ReductionPlan& plan, AdditionOrder order,
                                      int rank);

  /// `transport` outlives this. Throws UsageError when plan, buckets and transport differ in their number of ranks.
  BucketReducer(DeviceTransport& transport, BucketPlan buckets, ReductionPlan plan, AdditionOrder order);

  [[nodiscard]] const BucketPlan& buckets() const noexcept { return buckets_; }

  /// Collective; all ranks call it for bucket 0, 1, ... of a step. Queues the reduction of bucket `b`.
  /// partials: flat device buffers of buckets().length floats of which the bucket's run is final once what the
  /// transport waits for is done. In tree order this rank's partials, as plan.partials(rank) lists them; in the
  /// library's order the sum of its micro-batches, or nothing if it has none. `out`, a flat buffer, then holds the sum
  /// in this rank's segments of the bucket; the rest of it is not touched. `out` may be one of the partials.
  void reduce(std::size_t b, std::span<const float* const> partials, float* out);

  /// Collective, for all buckets of a step in plan order. Queues: this rank's segments of bucket b of `flat` are sent
  /// to everybody, and everybody's received.
  void gather(std::size_t b, float* flat);

 private:
  /// Tiles on the device.
  struct Tiles {
    std::size_t first = 0;
    std::size_t count = 0;
  };
  /// What one bucket needs, planned once.
  struct Bucket {
    std::size_t shard = 0;           ///< floats of this rank's segments, packed
    std::size_t slot = 0;            ///< floats that every rank's packed shard has in collectives of equal shares
    std::vector<Tiles> pack;         ///< by own partial: its flat buffer -> workspace
    Tiles unpack;                    ///< packed sum -> flat
    Tiles pack_own;                  ///< flat -> this rank's slot
    Tiles unpack_others;             ///< slots of the others -> flat
    std::vector<Outgoing> sends;     ///< tree order
    std::vector<Incoming> receives;  ///< tree order
    std::size_t first_source = 0;    ///< of sources_
    std::size_t sum = 0;             ///< where the packed sum goes, in the workspace
  };

  void plan_tree(Bucket& bucket, const GradientBucket& segments);
  void plan_slots(Bucket& bucket, const GradientBucket& segments);
  void upload();
  void copy(const Tiles& tiles, const float* from, float* to);
  [[nodiscard]] float* workspace(std::size_t at = 0) const { return workspace_.as<float>() + at; }

  DeviceTransport& transport_;
  BucketPlan buckets_;
  ReductionPlan plan_;
  AdditionOrder order_;
  Buffer workspace_;
  std::vector<Bucket> planned_;
  std::vector<cuda::CopyTile> tiles_;         ///< host copy, emptied by upload()
  std::vector<cuda::OrderedSource> sources_;  ///< host copy, emptied by upload()
  Buffer tiles_on_device_;
  Buffer sources_on_device_;
  int source_count_ = 0;  ///< of each bucket
  int depth_ = 1;
};

}  // namespace lomu

// Sums gradients over ranks onto the owners of their shards, and spreads the updated factors. The order of additions is
// that of reduction_tree.h, so the sums are the same bits for any number of ranks. It knows flat buffers and segments
// of them, not adapters: shard_plan.h says which segments a rank owns.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "comm/reduction_tree.h"
#include "comm/shard_plan.h"

namespace lomu {

/// Moves gradients and factors of one fixed flat layout between the ranks of `comm`. Allocates nothing after
/// construction.
class GradientReducer {
 public:
  /// Floats of workspace that rank `rank` needs: 0 for one rank.
  static std::size_t workspace_floats(const ReductionPlan& plan, std::span<const std::vector<Segment>> shards,
                                      int rank);

  /// shards[k]: the segments rank k owns, ascending; together they cover [0, length) once, in any shares, empty ones
  /// too. `workspace` outlives this and has workspace_floats() floats. Throws UsageError when shards overlap, leave
  /// gaps or do not fit the plan's number of ranks, or the plan that of `comm`.
  GradientReducer(Communicator& comm, ReductionPlan plan, std::vector<std::vector<Segment>> shards, std::size_t length,
                  std::span<float> workspace);

  /// Collective. `partials`: this rank's, as TreeAccumulator gives them, each `length` floats. On return the segments
  /// this rank owns in `out` (`length` floats) hold the sum over all micro-batches; the rest of `out` is unspecified.
  /// `out` may be the buffer of a partial: with one rank it should be, and then nothing is moved at all.
  void reduce_to_owners(std::span<const Partial> partials, std::span<float> out);

  /// Collective. `flat` (`length` floats) holds this rank's owned segments; on return it holds everybody's.
  void gather_factors(std::span<float> flat);

 private:
  /// Where one node's value lies, for the sum: another rank's, packed, or this rank's partial of that index.
  struct Source {
    const float* packed = nullptr;
    std::size_t partial = 0;
  };
  /// A run of this rank's shard: where in the flat buffer, where in a packed shard.
  struct Tile {
    std::size_t flat = 0;
    std::size_t packed = 0;
    std::size_t count = 0;
  };

  void plan_messages();
  void plan_sum();
  void add_sources(std::span<const Partial> partials, float* out);

  Communicator& comm_;
  ReductionPlan plan_;
  std::vector<std::vector<Segment>> shards_;
  std::size_t length_;
  std::span<float> workspace_;
  std::vector<Outgoing> sends_;
  std::vector<Incoming> receives_;
  std::vector<std::size_t> gather_bytes_;       ///< by rank
  std::vector<Source> sources_;                 ///< the tree's nodes from left to right
  std::vector<std::size_t> adds_after_source_;  ///< how many additions of the two last values follow each source
  std::vector<Tile> tiles_;
  std::size_t depth_ = 0;       ///< most values held at once while adding
  std::vector<float> scratch_;  ///< [thread, depth, tile]
};

/// Collective. One value per micro-batch of this rank's block, in order, from every rank: all M of them, in order.
std::vector<double> gather_micro_batch_values(Communicator& comm, const ReductionPlan& plan,
                                              std::span<const double> mine);

}  // namespace lomu

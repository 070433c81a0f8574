#include "comm/bucket_reducer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kernels/error.h"

namespace lomu {
namespace {

// Packed shards start on multiples of 256 bytes: for 16-byte accesses, and for what the links like.
constexpr std::size_t kAlignFloats = 64;

std::size_t aligned(std::size_t floats) {
  return (floats + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
}

std::size_t floats_in(std::span<const Segment> segments) {
  std::size_t floats = 0;
  for (const Segment& segment : segments) floats += segment.count;
  return floats;
}

std::size_t slot_of(const GradientBucket& bucket) {
  std::size_t largest = 0;
  for (const auto& segments : bucket.segments) largest = std::max(largest, floats_in(segments));
  return aligned(largest);
}

std::string name_of(std::string_view what, std::size_t bucket) {
  return fmt::format("{}, bucket {}", what, bucket);
}

}  // namespace

std::size_t BucketReducer::workspace_floats(const BucketPlan& buckets, const ReductionPlan& plan, AdditionOrder order,
                                            int rank) {
  if (plan.ranks() == 1) return 0;
  const auto world = static_cast<std::size_t>(plan.ranks());
  std::size_t most = 0;
  for (const GradientBucket& bucket : buckets.buckets) {
    // Gathering, and the library's sums, need a slot for each rank and one for the result. A bucket's reduction is over
    // before that of the next begins, so all use the same memory.
    std::size_t floats = (world + 1) * slot_of(bucket);
    if (order == AdditionOrder::kTree) {
      const std::size_t mine = aligned(floats_in(bucket.segments[static_cast<std::size_t>(rank)]));
      std::size_t tree = mine;  // the sum
      for (int other = 0; other < plan.ranks(); ++other) {
        tree += plan.partials(other).size() * mine;  // received, and the rank's own
        if (other == rank) continue;
        tree += plan.partials(rank).size() * aligned(floats_in(bucket.segments[static_cast<std::size_t>(other)]));
      }
      floats = std::max(floats, tree);
    }
    most = std::max(most, floats);
  }
  return most;
}

BucketReducer::BucketReducer(DeviceTransport& transport, BucketPlan buckets, ReductionPlan plan, AdditionOrder order)
    : transport_(transport), buckets_(std::move(buckets)), plan_(std::move(plan)), order_(order) {
  const auto world = static_cast<std::size_t>(transport.size());
  if (plan_.ranks() != transport.size() || buckets_.shards.segments.size() != world) {
    throw UsageError(fmt::format("a plan for {} ranks and {} shards in a world of {}", plan_.ranks(),
                                 buckets_.shards.segments.size(), world));
  }
  if (world == 1) {
    for (const GradientBucket& segments : buckets_.buckets) {
      const std::size_t first = tiles_.size();
      cuda::append_tiles(tiles_, segments.flat.begin, segments.flat.begin, segments.flat.count);
      planned_.emplace_back().pack.push_back({first, tiles_.size() - first});
    }
    upload();
    return;
  }
  Memory& memory = transport_.memory();
  const std::size_t floats = workspace_floats(buckets_, plan_, order_, transport_.rank());
  workspace_ = memory.allocate(Scope::kComm, floats * sizeof(float), "gradients from other ranks");
  for (const GradientBucket& segments : buckets_.buckets) {
    Bucket& bucket = planned_.emplace_back();
    bucket.shard = floats_in(segments.segments[static_cast<std::size_t>(transport_.rank())]);
    bucket.slot = slot_of(segments);
    plan_slots(bucket, segments);
    if (order_ == AdditionOrder::kTree) plan_tree(bucket, segments);
  }
  upload();
}

// One message for each pair of ranks: all the sender's partials, each cut down to the receiver's shard, as in
// gradient_reducer.cpp. The workspace: what is sent, what is received and the rank's own, the sum.
void BucketReducer::plan_tree(Bucket& bucket, const GradientBucket& segments) {
  const int rank = transport_.rank();
  const std::size_t own_partials = plan_.partials(rank).size();
  const std::size_t mine = aligned(bucket.shard);
  std::size_t at = 0;
  std::vector<std::size_t> packed_at(static_cast<std::size_t>(transport_.size()));
  for (int other = 0; other < transport_.size(); ++other) {
    if (other == rank) continue;
    const auto& theirs = segments.segments[static_cast<std::size_t>(other)];
    packed_at[static_cast<std::size_t>(other)] = at;
    const std::size_t floats = own_partials * aligned(floats_in(theirs));
    if (floats == 0) continue;
    bucket.sends.push_back({other, workspace(at), floats * sizeof(float)});
    at += floats;
  }

  NodeStack stack(plan_.micro_batches());
  bucket.first_source = sources_.size();
  for (int other = 0; other < transport_.size(); ++other) {
    const auto partials = plan_.partials(other);
    if (other == rank) packed_at[static_cast<std::size_t>(rank)] = at;
    const std::size_t floats = partials.size() * mine;
    if (other != rank && floats > 0) bucket.receives.push_back({other, workspace(at), floats * sizeof(float)});
    for (const TreeNode& node : partials) {
      const std::size_t additions = stack.push(node);
      depth_ = std::max(depth_, static_cast<int>(stack.size() + additions));
      sources_.push_back({workspace(at), static_cast<std::uint32_t>(additions), 0});
      at += mine;
    }
  }
  source_count_ = static_cast<int>(sources_.size() - bucket.first_source);
  bucket.sum = at;

  for (std::size_t p = 0; p < own_partials; ++p) {
    Tiles tiles{tiles_.size(), 0};
    for (int other = 0; other < transport_.size(); ++other) {
      const auto& theirs = segments.segments[static_cast<std::size_t>(other)];
      std::size_t to = packed_at[static_cast<std::size_t>(other)] + p * aligned(floats_in(theirs));
      for (const Segment& segment : theirs) {
        cuda::append_tiles(tiles_, segment.begin, to, segment.count);
        to += segment.count;
      }
    }
    tiles.count = tiles_.size() - tiles.first;
    bucket.pack.push_back(tiles);
  }
}

// Every rank's shard in a slot of equal size, then one slot more for a sum.
void BucketReducer::plan_slots(Bucket& bucket, const GradientBucket& segments) {
  const int rank = transport_.rank();
  const auto tiles_of = [&](int other, bool to_slots) {
    std::size_t slot = static_cast<std::size_t>(other) * bucket.slot;
    for (const Segment& segment : segments.segments[static_cast<std::size_t>(other)]) {
      if (to_slots) {
        cuda::append_tiles(tiles_, segment.begin, slot, segment.count);
      } else {
        cuda::append_tiles(tiles_, slot, segment.begin, segment.count);
      }
      slot += segment.count;
    }
  };
  const auto end = [&](Tiles& tiles) { tiles.count = tiles_.size() - tiles.first; };

  bucket.sum = static_cast<std::size_t>(transport_.size()) * bucket.slot;
  bucket.pack_own.first = tiles_.size();
  tiles_of(rank, true);
  end(bucket.pack_own);
  bucket.unpack_others.first = tiles_.size();
  for (int other = 0; other < transport_.size(); ++other) {
    if (other != rank) tiles_of(other, false);
  }
  end(bucket.unpack_others);
  bucket.unpack.first = tiles_.size();
  std::size_t packed = 0;
  for (const Segment& segment : segments.segments[static_cast<std::size_t>(rank)]) {
    cuda::append_tiles(tiles_, packed, segment.begin, segment.count);
    packed += segment.count;
  }
  end(bucket.unpack);
  if (order_ == AdditionOrder::kTree) return;
  Tiles all{tiles_.size(), 0};
  for (int other = 0; other < transport_.size(); ++other) tiles_of(other, true);
  end(all);
  bucket.pack.push_back(all);
}

void BucketReducer::upload() {
  Memory& memory = transport_.memory();
  const auto send = [&](const auto& table, std::string_view label) {
    const std::size_t bytes = table.size() * sizeof(table[0]);
    Buffer buffer = memory.allocate(Scope::kComm, bytes, label);
    if (bytes > 0) memory.storage().upload(buffer.data(), table.data(), bytes);
    return buffer;
  };
  tiles_on_device_ = send(tiles_, "places of the ranks' shards");
  sources_on_device_ = send(sources_, "order of the gradient's sum");
  tiles_ = {};
  sources_ = {};
}

void BucketReducer::copy(const Tiles& tiles, const float* from, float* to) {
  transport_.copy_tiles(tiles_on_device_.as<cuda::CopyTile>() + tiles.first, tiles.count, from, to);
}

void BucketReducer::reduce(std::size_t b, std::span<const float* const> partials, float* out) {
  const std::size_t expected = plan_.partials(transport_.rank()).size();
  const bool fits = order_ == AdditionOrder::kTree ? partials.size() == expected
                                                   : partials.size() == std::min<std::size_t>(expected, 1);
  if (!fits || b >= buckets_.buckets.size()) {
    throw UsageError(fmt::format("{} sums for bucket {} of {}, where this rank has {} partial sums", partials.size(), b,
                                 buckets_.buckets.size(), expected));
  }
  if (transport_.size() == 1) {
    if (partials[0] != out) copy(planned_[b].pack[0], partials[0], out);
    return;
  }
  Bucket& bucket = planned_[b];
  const std::string what = name_of("gradients to owners", b);
  if (order_ == AdditionOrder::kTree) {
    for (std::size_t p = 0; p < partials.size(); ++p) copy(bucket.pack[p], partials[p], workspace());
    transport_.exchange(bucket.sends, bucket.receives, what);
    const auto* sources = sources_on_device_.as<cuda::OrderedSource>() + bucket.first_source;
    transport_.ordered_add(sources, source_count_, depth_, workspace(bucket.sum), bucket.shard);
  } else {
    // A rank without micro-batches contributes zeros; and so do the unused ends of the slots, which are added too.
    transport_.zero(workspace(), bucket.sum);
    if (!partials.empty()) copy(bucket.pack[0], partials[0], workspace());
    transport_.reduce_scatter(workspace(), workspace(bucket.sum), bucket.slot, what);
  }
  copy(bucket.unpack, workspace(bucket.sum), out);
}

void BucketReducer::gather(std::size_t b, float* flat) {
  if (b >= buckets_.buckets.size()) {
    throw UsageError(fmt::format("bucket {} of {}", b, buckets_.buckets.size()));
  }
  if (transport_.size() == 1) return;
  const Bucket& bucket = planned_[b];
  copy(bucket.pack_own, flat, workspace());
  transport_.all_gather(workspace(static_cast<std::size_t>(transport_.rank()) * bucket.slot), workspace(), bucket.slot,
                        name_of("factors from owners", b));
  copy(bucket.unpack_others, workspace(), flat);
}

}  // namespace lomu

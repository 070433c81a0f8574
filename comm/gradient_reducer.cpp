#include "comm/gradient_reducer.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace lomu {
namespace {

// 8 KiB: the tiles of a tree's path from leaf to root stay in the first-level cache.
constexpr std::size_t kTileFloats = 2048;

constexpr int kGradientTag = 1;

std::size_t floats_in(std::span<const Segment> segments) {
  std::size_t floats = 0;
  for (const Segment& segment : segments) floats += segment.count;
  return floats;
}

// flat segments -> packed, one after the other. Returns the end of what was written.
float* pack(std::span<const Segment> segments, const float* flat, float* packed) {
  for (const Segment& segment : segments) {
    packed = std::copy_n(flat + segment.begin, segment.count, packed);
  }
  return packed;
}

void unpack(std::span<const Segment> segments, const float* packed, float* flat) {
  for (const Segment& segment : segments) {
    std::copy_n(packed, segment.count, flat + segment.begin);
    packed += segment.count;
  }
}

void check_shards(std::span<const std::vector<Segment>> shards, std::size_t length) {
  std::vector<Segment> all;
  for (const std::vector<Segment>& shard : shards) all.insert(all.end(), shard.begin(), shard.end());
  std::sort(all.begin(), all.end(), [](const Segment& a, const Segment& b) { return a.begin < b.begin; });
  std::size_t at = 0;
  for (const Segment& segment : all) {
    if (segment.count == 0) continue;
    if (segment.begin != at || segment.count > length - at) {
      throw UsageError(fmt::format("a shard's segment [{}, +{}) does not continue at {} of {} floats", segment.begin,
                                   segment.count, at, length));
    }
    at += segment.count;
  }
  if (at != length) throw UsageError(fmt::format("the shards end at {} of {} floats", at, length));
}

}  // namespace

std::size_t GradientReducer::workspace_floats(const ReductionPlan& plan, std::span<const std::vector<Segment>> shards,
                                              int rank) {
  if (plan.ranks() == 1) return 0;
  const std::size_t mine = floats_in(shards[static_cast<std::size_t>(rank)]);
  std::size_t total = 0;
  for (const std::vector<Segment>& shard : shards) total += floats_in(shard);
  std::size_t sent = plan.partials(rank).size() * (total - mine);
  std::size_t received = 0;
  for (int other = 0; other < plan.ranks(); ++other) {
    if (other != rank) received += plan.partials(other).size() * mine;
  }
  // Reducing and gathering use the same memory, one after the other.
  return std::max(sent + received, total);
}

GradientReducer::GradientReducer(Communicator& comm, ReductionPlan plan, std::vector<std::vector<Segment>> shards,
                                 std::size_t length, std::span<float> workspace)
    : comm_(comm), plan_(std::move(plan)), shards_(std::move(shards)), length_(length), workspace_(workspace) {
  if (plan_.ranks() != comm.size() || shards_.size() != static_cast<std::size_t>(comm.size())) {
    throw UsageError(
        fmt::format("a plan for {} ranks and {} shards in a world of {}", plan_.ranks(), shards_.size(), comm.size()));
  }
  check_shards(shards_, length);
  const std::size_t needed = workspace_floats(plan_, shards_, comm.rank());
  if (workspace.size() < needed) {
    throw UsageError(fmt::format("a workspace of {} floats where {} are needed", workspace.size(), needed));
  }
  if (comm.size() == 1) return;
  plan_messages();
  plan_sum();
}

// One message for each pair of ranks: all the sender's partials, each cut down to the receiver's shard.
void GradientReducer::plan_messages() {
  const std::size_t mine = floats_in(shards_[static_cast<std::size_t>(comm_.rank())]);
  const std::size_t own_partials = plan_.partials(comm_.rank()).size();
  float* at = workspace_.data();
  for (int other = 0; other < comm_.size(); ++other) {
    const std::size_t theirs = floats_in(shards_[static_cast<std::size_t>(other)]);
    gather_bytes_.push_back(theirs * sizeof(float));
    const std::size_t floats = own_partials * theirs;
    if (other == comm_.rank() || floats == 0) continue;
    sends_.push_back({other, at, floats * sizeof(float)});
    at += floats;
  }
  for (int other = 0; other < comm_.size(); ++other) {
    const std::size_t partials = plan_.partials(other).size();
    if (other == comm_.rank()) {
      for (std::size_t i = 0; i < partials; ++i) sources_.push_back({nullptr, i});
      continue;
    }
    for (std::size_t i = 0; i < partials; ++i) sources_.push_back({at + i * mine, 0});
    const std::size_t floats = partials * mine;
    if (floats == 0) continue;
    receives_.push_back({other, at, floats * sizeof(float)});
    at += floats;
  }
}

// The order of additions, found once: blocks ascend with the rank, so the sources are the tree's nodes from left to
// right.
void GradientReducer::plan_sum() {
  NodeStack stack(plan_.micro_batches());
  std::size_t most = 0;
  for (int rank = 0; rank < comm_.size(); ++rank) {
    for (const TreeNode& node : plan_.partials(rank)) {
      adds_after_source_.push_back(stack.push(node));
      most = std::max(most, stack.size() + adds_after_source_.back());
    }
  }
  depth_ = most;

  std::size_t packed = 0;
  for (const Segment& segment : shards_[static_cast<std::size_t>(comm_.rank())]) {
    for (std::size_t at = 0; at < segment.count; at += kTileFloats) {
      const std::size_t count = std::min(kTileFloats, segment.count - at);
      tiles_.push_back({segment.begin + at, packed + at, count});
    }
    packed += segment.count;
  }
  scratch_.resize(static_cast<std::size_t>(omp_get_max_threads()) * depth_ * kTileFloats);
}

void GradientReducer::reduce_to_owners(std::span<const Partial> partials, std::span<float> out) {
  const std::span<const TreeNode> expected = plan_.partials(comm_.rank());
  const bool as_planned = std::equal(partials.begin(), partials.end(), expected.begin(), expected.end(),
                                     [&](const Partial& partial, const TreeNode& node) {
                                       return partial.node == node && partial.sum.size() == length_;
                                     });
  if (!as_planned || out.size() != length_) {
    throw UsageError(fmt::format("{} partial sums where the plan has {}, or buffers of another length than {}",
                                 partials.size(), expected.size(), length_));
  }
  if (comm_.size() == 1) {
    const std::span<const float> root = partials[0].sum;
    if (root.data() != out.data()) std::copy(root.begin(), root.end(), out.begin());
    return;
  }
  float* at = workspace_.data();
  for (const Outgoing& message : sends_) {
    for (const Partial& partial : partials) {
      at = pack(shards_[static_cast<std::size_t>(message.to)], partial.sum.data(), at);
    }
  }
  // Ranks reach this point far apart. Waiting here, and not with large messages under way, lets a backend wait lazily
  // now and attend closely to the messages when they can move.
  comm_.barrier("gradients to owners");
  comm_.exchange(sends_, receives_, kGradientTag, "gradients to owners");
  add_sources(partials, out.data());
}

// Tile by tile, each walked through the whole tree while it is in cache: every source is read once, `out` written once.
// A tile of `out` is written after all its sources are read, so `out` may be one of them.
void GradientReducer::add_sources(std::span<const Partial> partials, float* out) {
  const int threads = static_cast<int>(scratch_.size() / (depth_ * kTileFloats));
  const auto tiles = static_cast<std::ptrdiff_t>(tiles_.size());
#pragma omp parallel num_threads(threads)
  {
    float* const scratch = scratch_.data() + static_cast<std::size_t>(omp_get_thread_num()) * depth_ * kTileFloats;
#pragma omp for schedule(static)
    for (std::ptrdiff_t t = 0; t < tiles; ++t) {
      const Tile& tile = tiles_[static_cast<std::size_t>(t)];
      std::size_t height = 0;
      for (std::size_t s = 0; s < sources_.size(); ++s) {
        const Source& source = sources_[s];
        const float* from =
            source.packed != nullptr ? source.packed + tile.packed : partials[source.partial].sum.data() + tile.flat;
        std::copy_n(from, tile.count, scratch + height * kTileFloats);
        ++height;
        for (std::size_t i = 0; i < adds_after_source_[s]; ++i) {
          --height;
          float* const left = scratch + (height - 1) * kTileFloats;
          const float* const right = scratch + height * kTileFloats;
#pragma omp simd
          for (std::size_t j = 0; j < tile.count; ++j) left[j] += right[j];
        }
      }
      std::copy_n(scratch, tile.count, out + tile.flat);
    }
  }
}

void GradientReducer::gather_factors(std::span<float> flat) {
  if (flat.size() != length_) {
    throw UsageError(fmt::format("factors of {} floats where {} are planned", flat.size(), length_));
  }
  if (comm_.size() == 1) return;
  const auto rank = static_cast<std::size_t>(comm_.rank());
  const std::span<float> all = workspace_.first(length_);
  float* mine = all.data();
  for (std::size_t other = 0; other < rank; ++other) mine += gather_bytes_[other] / sizeof(float);
  pack(shards_[rank], flat.data(), mine);
  comm_.all_gatherv(std::as_bytes(std::span(mine, gather_bytes_[rank] / sizeof(float))), std::as_writable_bytes(all),
                    gather_bytes_, "factors from owners");
  const float* packed = all.data();
  for (std::size_t other = 0; other < shards_.size(); ++other) {
    if (other != rank) unpack(shards_[other], packed, flat.data());
    packed += gather_bytes_[other] / sizeof(float);
  }
}

std::vector<double> gather_micro_batch_values(Communicator& comm, const ReductionPlan& plan,
                                              std::span<const double> mine) {
  std::vector<std::size_t> bytes;
  for (int rank = 0; rank < plan.ranks(); ++rank) bytes.push_back(plan.block(rank).size() * sizeof(double));
  std::vector<double> all(plan.micro_batches());
  comm.all_gatherv(std::as_bytes(mine), std::as_writable_bytes(std::span(all)), bytes, "micro-batch values");
  return all;
}

}  // namespace lomu

#include "comm/reduction_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/error.h"

namespace lomu {
namespace {

constexpr std::size_t kFloatsPerLine = 16;  // 64 bytes
// Below this the threads cost more than the additions: 64k floats are 20 us of one core.
constexpr std::ptrdiff_t kParallelFloats = 1 << 16;

bool is_right_child(const TreeNode& node) {
  return ((node.start >> node.level) & 1u) != 0;
}

/// A left child without a right sibling has its parent's value: it may be called by the parent's name.
bool stands_for_parent(const TreeNode& node, std::size_t leaves) {
  const std::size_t width = std::size_t{1} << node.level;
  return width < leaves && !is_right_child(node) && leaves - node.start <= width;
}

}  // namespace

std::size_t NodeStack::push(TreeNode node) {
  std::size_t additions = 0;
  while (true) {
    if (stands_for_parent(node, leaves_)) {
      ++node.level;
      continue;
    }
    const TreeNode sibling{node.start - (std::size_t{1} << node.level), node.level};
    if (!is_right_child(node) || nodes_.empty() || nodes_.back() != sibling) break;
    node = {sibling.start, sibling.level + 1};
    nodes_.pop_back();
    ++additions;
  }
  nodes_.push_back(node);
  return additions;
}

ReductionPlan::ReductionPlan(std::size_t micro_batches, int ranks) : micro_batches_(micro_batches) {
  // 2^32 keeps k M / W and every 2^level far from overflow.
  if (micro_batches < 1 || micro_batches > (std::size_t{1} << 32)) {
    throw UsageError(fmt::format("a step of {} micro-batches is not possible", micro_batches));
  }
  if (ranks < 1) throw UsageError(fmt::format("{} ranks: at least 1 is needed", ranks));
  partials_.resize(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    const Block mine = block(rank);
    NodeStack stack(micro_batches);
    std::size_t most = 0;
    for (std::size_t leaf = mine.begin; leaf < mine.end; ++leaf) {
      most = std::max(most, stack.size() + 1);
      stack.push({leaf, 0});
    }
    partials_[static_cast<std::size_t>(rank)] = stack.nodes();
    buffers_needed_.push_back(most);
  }
}

Block ReductionPlan::block(int rank) const {
  const auto ranks_count = partials_.size();
  const auto k = static_cast<std::size_t>(rank);
  if (rank < 0 || k >= ranks_count) throw UsageError(fmt::format("rank {} of a plan for {}", rank, ranks_count));
  return {k * micro_batches_ / ranks_count, (k + 1) * micro_batches_ / ranks_count};
}

std::span<const TreeNode> ReductionPlan::partials(int rank) const {
  return partials_.at(static_cast<std::size_t>(rank));
}

std::size_t ReductionPlan::buffers_needed(int rank) const {
  return buffers_needed_.at(static_cast<std::size_t>(rank));
}

std::size_t BufferPool::storage_floats(std::size_t count, std::size_t length) {
  const std::size_t stride = (length + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
  std::size_t floats = 0;
  if (stride < length || __builtin_mul_overflow(count, stride, &floats) ||
      floats > std::numeric_limits<std::size_t>::max() / sizeof(float)) {
    throw UsageError(fmt::format("{} buffers of {} floats exceed the address space", count, length));
  }
  return floats;
}

BufferPool::BufferPool(std::span<float> storage, std::size_t length) : length_(length) {
  const std::size_t stride = storage_floats(1, length);
  if (stride == 0) throw UsageError("buffers of no floats");
  for (std::size_t at = storage.size() / stride; at-- > 0;) free_.push_back(storage.data() + at * stride);
}

std::span<float> BufferPool::acquire() {
  if (free_.empty()) throw Error(fmt::format("no gradient buffer of {} floats is left in the pool", length_));
  float* const buffer = free_.back();
  free_.pop_back();
  return {buffer, length_};
}

// Last in, first out: the buffer released last is the one still in the caches. Its place in free_ was there before.
void BufferPool::release(std::span<float> buffer) {
  free_.push_back(buffer.data());
}

TreeAccumulator::TreeAccumulator(const ReductionPlan& plan, int rank, BufferPool& pool)
    : plan_(plan), block_(plan.block(rank)), pool_(pool), next_(block_.begin), nodes_(plan.micro_batches()) {
  sums_.reserve(plan.buffers_needed(rank));
}

std::span<float> TreeAccumulator::next_buffer() {
  if (next_ == block_.end) throw Error(fmt::format("this rank's block ends with micro-batch {}", block_.end));
  if (pending_.empty()) pending_ = pool_.acquire();
  return pending_;
}

void TreeAccumulator::push(std::size_t index, const Adder& adder) {
  if (index != next_ || next_ == block_.end || pending_.empty()) {
    throw Error(fmt::format("micro-batch {} pushed where {} of block [{}, {}) is next", index, next_, block_.begin,
                            block_.end));
  }
  sums_.push_back({{index, 0}, pending_});
  pending_ = {};
  ++next_;
  for (std::size_t additions = nodes_.push({index, 0}); additions > 0; --additions) {
    const std::span<float> right = sums_.back().sum;
    sums_.pop_back();
    adder(sums_.back().sum, right);
    pool_.release(right);
  }
  sums_.back().node = nodes_.nodes().back();
}

std::span<const Partial> TreeAccumulator::partials() const {
  if (next_ != block_.end) {
    throw Error(fmt::format("micro-batch {} of block [{}, {}) has not been pushed", next_, block_.begin, block_.end));
  }
  return sums_;
}

void TreeAccumulator::reset() noexcept {
  for (const Partial& partial : sums_) pool_.release(partial.sum);
  if (!pending_.empty()) pool_.release(pending_);
  sums_.clear();
  nodes_ = NodeStack(plan_.micro_batches());
  pending_ = {};
  next_ = block_.begin;
}

void add_into(std::span<float> into, std::span<const float> from) {
  if (into.size() != from.size()) {
    throw Error(fmt::format("sum of buffers of {} and {} floats", into.size(), from.size()));
  }
  float* const a = into.data();
  const float* const b = from.data();
  const auto count = static_cast<std::ptrdiff_t>(into.size());
#pragma omp parallel for simd schedule(static) if (count >= kParallelFloats)
  for (std::ptrdiff_t i = 0; i < count; ++i) a[i] += b[i];
}

double tree_sum(std::span<const double> values) {
  if (values.empty()) return 0.0;
  if (values.size() == 1) return values[0];
  // The left subtree is full: the largest power of two below the number of leaves.
  const std::size_t left = std::bit_floor(values.size() - 1);
  return tree_sum(values.first(left)) + tree_sum(values.subspan(left));
}

}  // namespace lomu

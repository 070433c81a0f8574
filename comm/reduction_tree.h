// The one order in which the micro-batches of a step are added, whatever the number of ranks (docs/determinism.md).
// Micro-batches 0..M-1 are the leaves of one binary tree of aligned (dyadic) ranges; where M is not a power of two the
// missing right leaves are skipped. A rank computes a contiguous block of leaves and adds what the tree lets it add:
// its partials are the largest nodes inside its block. This file knows the tree and a rank's own sums, not how ranks
// talk.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

namespace lomu {

/// The node of leaves [start, start + 2^level), as far as they exist. `start` is a multiple of 2^level.
struct TreeNode {
  std::size_t start = 0;
  unsigned level = 0;
  friend bool operator==(const TreeNode&, const TreeNode&) = default;
};

/// The tree's nodes held so far, left to right, each as large as it can be. Says when two of them may be added.
class NodeStack {
 public:
  explicit NodeStack(std::size_t leaves) : leaves_(leaves) {}

  /// Takes the node that follows those held. Returns how many additions of the two last values are now due, one after
  /// the other; the nodes held are those after these additions.
  std::size_t push(TreeNode node);
  [[nodiscard]] std::size_t size() const noexcept { return nodes_.size(); }
  [[nodiscard]] const std::vector<TreeNode>& nodes() const noexcept { return nodes_; }

 private:
  std::size_t leaves_;
  std::vector<TreeNode> nodes_;
};

/// Half-open range of micro-batch indices.
struct Block {
  std::size_t begin = 0;
  std::size_t end = 0;
  [[nodiscard]] std::size_t size() const noexcept { return end - begin; }
};

/// Who computes which micro-batches of a step, and which partial sums that leaves on each rank.
class ReductionPlan {
 public:
  /// `micro_batches` >= 1, `ranks` >= 1; throws UsageError otherwise.
  ReductionPlan(std::size_t micro_batches, int ranks);

  [[nodiscard]] std::size_t micro_batches() const noexcept { return micro_batches_; }
  [[nodiscard]] int ranks() const noexcept { return static_cast<int>(partials_.size()); }
  /// Rank k computes [k M / W, (k + 1) M / W): sizes differ by one at most; empty for some ranks when W > M.
  [[nodiscard]] Block block(int rank) const;
  /// The largest tree nodes inside the rank's block, left to right. For one rank: the root.
  [[nodiscard]] std::span<const TreeNode> partials(int rank) const;
  /// How many buffers a TreeAccumulator of this rank holds at once, at most, counting the one being filled.
  [[nodiscard]] std::size_t buffers_needed(int rank) const;

 private:
  std::size_t micro_batches_;
  std::vector<std::vector<TreeNode>> partials_;
  std::vector<std::size_t> buffers_needed_;
};

/// Equal buffers of `length` floats cut from memory that the caller owns (and accounts for). Each starts on a multiple
/// of 64 bytes if the storage does. Not thread-safe.
class BufferPool {
 public:
  /// Floats of storage for `count` buffers of `length`. Throws UsageError on overflow.
  static std::size_t storage_floats(std::size_t count, std::size_t length);

  BufferPool(std::span<float> storage, std::size_t length);
  [[nodiscard]] std::size_t length() const noexcept { return length_; }
  [[nodiscard]] std::size_t available() const noexcept { return free_.size(); }
  /// Contents are whatever was there before. Throws Error when none is left.
  std::span<float> acquire();
  void release(std::span<float> buffer);

 private:
  std::size_t length_;
  std::vector<float*> free_;
};

/// A partial sum: the value of one tree node.
struct Partial {
  TreeNode node;
  std::span<float> sum;
};

/// into[i] += from[i]. Threads split the range; every element is one f32 addition.
void add_into(std::span<float> into, std::span<const float> from);

/// Adds as add_into does, where the buffers lie; or notes what is to be added later.
using Adder = std::function<void(std::span<float> into, std::span<const float> from)>;

/// A rank's binary counter. For each micro-batch of its block in order: fill next_buffer(), push() it. Sums are f32,
/// one fixed order per element, so they depend neither on the number of threads nor on the vector width.
class TreeAccumulator {
 public:
  /// `pool` must outlive this, hold plan.buffers_needed(rank) buffers, and be used by nobody else between begin and
  /// reset.
  TreeAccumulator(const ReductionPlan& plan, int rank, BufferPool& pool);
  TreeAccumulator(const TreeAccumulator&) = delete;
  TreeAccumulator& operator=(const TreeAccumulator&) = delete;
  ~TreeAccumulator() { reset(); }

  /// A buffer for the gradient of the next micro-batch, contents undefined. The same one until it is pushed.
  std::span<float> next_buffer();
  /// Takes the buffer of next_buffer() as micro-batch `index` and adds what the tree allows, with `adder`.
  /// Throws Error unless `index` is the next one of the block.
  void push(std::size_t index, const Adder& adder = add_into);
  /// The block's partials, once every micro-batch has been pushed (throws Error before): equal to plan.partials(rank).
  [[nodiscard]] std::span<const Partial> partials() const;
  /// Gives all buffers back; the next step can begin.
  void reset() noexcept;

 private:
  const ReductionPlan& plan_;
  Block block_;
  BufferPool& pool_;
  std::size_t next_;
  std::span<float> pending_;
  NodeStack nodes_;
  std::vector<Partial> sums_;  ///< of nodes_, in the same order
};

/// The sum of one value per micro-batch along the same tree; 0 when there are none.
double tree_sum(std::span<const double> values);

}  // namespace lomu

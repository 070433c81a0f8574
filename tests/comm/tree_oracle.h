// The reduction tree written down as plainly as possible, and numbers whose sums depend on the order of addition.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "comm/reduction_tree.h"

namespace lomu::oracle {

/// A number of either sign and of size 2^-12 to 2^12, fixed by (index, seed).
inline double noise(std::uint64_t index, std::uint64_t seed) {
  std::uint64_t x = index * 0x9e3779b97f4a7c15u + seed * 0xd1b54a32d192ed03u + 1;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;  // splitmix64's finalizer
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  const double mantissa = 1.0 + static_cast<double>(x >> 12) * 0x1p-52;
  return std::ldexp((x & 1u) != 0 ? mantissa : -mantissa, static_cast<int>((x >> 1) % 25) - 12);
}

inline std::vector<std::vector<float>> gradients(std::size_t micro_batches, std::size_t length, std::uint64_t seed) {
  std::vector<std::vector<float>> all(micro_batches, std::vector<float>(length));
  for (std::size_t i = 0; i < micro_batches; ++i) {
    for (std::size_t j = 0; j < length; ++j) all[i][j] = static_cast<float>(noise(i * length + j, seed));
  }
  return all;
}

inline double add(double a, double b) {
  return a + b;
}
inline std::vector<float> add(std::vector<float> a, const std::vector<float>& b) {
  for (std::size_t j = 0; j < a.size(); ++j) a[j] += b[j];
  return a;
}

/// The value of node (start, level): its children's sum; a missing right child is skipped.
template <class Value>
Value node_sum(const std::vector<Value>& leaves, std::size_t start, unsigned level) {
  if (level == 0) return leaves[start];
  const std::size_t middle = start + (std::size_t{1} << (level - 1));
  Value left = node_sum(leaves, start, level - 1);
  if (middle >= leaves.size()) return left;
  return add(left, node_sum(leaves, middle, level - 1));
}

/// The largest nodes inside `block`, found from the root downwards. A node whose right half is missing counts as whole.
inline void descend(std::size_t leaves, const Block& block, TreeNode node, std::vector<TreeNode>& found) {
  const std::size_t end = std::min(leaves, node.start + (std::size_t{1} << node.level));
  if (node.start >= block.end || end <= block.begin || node.start >= leaves) return;
  if (node.start >= block.begin && end <= block.end) {
    found.push_back(node);
    return;
  }
  const unsigned below = node.level - 1;
  descend(leaves, block, {node.start, below}, found);
  descend(leaves, block, {node.start + (std::size_t{1} << below), below}, found);
}

inline std::vector<TreeNode> largest_nodes(std::size_t leaves, const Block& block) {
  unsigned level = 0;
  while ((std::size_t{1} << level) < leaves) ++level;
  std::vector<TreeNode> found;
  if (block.size() > 0) descend(leaves, block, {0, level}, found);
  return found;
}

}  // namespace lomu::oracle

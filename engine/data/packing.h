// Which examples share a micro-batch. A plan of an epoch depends on the lengths, the seed and the epoch alone, never on
// the number of ranks or threads, and is the same on every machine. Not here: tokens themselves (batch.h), and which
// micro-batches make a step (step_plan.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lomu {

struct PackOptions {
  std::uint64_t seed = 0;
  std::uint64_t epoch = 0;
  std::uint32_t micro_batch_tokens = 2048;  ///< capacity: no micro-batch holds more tokens
  bool shuffle = true;                      ///< false: examples and micro-batches stay in the order of the data
  bool packing = true;                      ///< false: neighbours are grouped in order until the next one does not fit
};

/// Micro-batches of one epoch: example indices one after another, cut by `offsets`.
class EpochPlan {
 public:
  EpochPlan() : offsets_{0} {}

  [[nodiscard]] std::size_t size() const { return offsets_.size() - 1; }
  [[nodiscard]] std::span<const std::uint32_t> operator[](std::size_t micro_batch) const {
    return std::span(examples_).subspan(offsets_[micro_batch], offsets_[micro_batch + 1] - offsets_[micro_batch]);
  }
  void append(std::span<const std::uint32_t> micro_batch);

  bool operator==(const EpochPlan&) const = default;

 private:
  std::vector<std::uint32_t> examples_;
  std::vector<std::size_t> offsets_;
};

/// Packs examples of the given lengths (tokens) into micro-batches; each example is in exactly one.
///
/// With packing: the (shuffled) order is cut into windows of about 64 micro-batches' worth of tokens; a window is
/// packed by best fit, longest first (Johnson et al. 1974), the emptiest micro-batch of a window is unpacked into the
/// next one, and the micro-batches are shuffled over the epoch. O(n log n). Throws UsageError when a length is 0 or
/// above micro_batch_tokens, or when there are 2^32 - 1 examples or more.
EpochPlan make_epoch(std::span<const std::uint32_t> lengths, const PackOptions& options);

/// Tokens held over tokens that would fit, in [0, 1]; 1 for an empty plan.
double fill_ratio(const EpochPlan& plan, std::span<const std::uint32_t> lengths, std::uint32_t micro_batch_tokens);

/// 0 .. n-1 in an order given by (seed, purpose stream `epoch`): sorted by 64 random bits each, so no standard
/// library's shuffle has a say. O(n log n).
std::vector<std::uint32_t> shuffled(std::uint32_t n, std::uint64_t seed, std::uint64_t epoch);

struct Split {
  std::vector<std::uint32_t> train;
  std::vector<std::uint32_t> validation;
};

/// Holds out round(fraction * n) of n examples, at least one and never all: those whose hash of (seed, index) is
/// smallest. Both lists ascend. Throws UsageError when fraction is not inside (0, 1) or n < 2.
Split split_validation(std::uint32_t n, double fraction, std::uint64_t seed);

}  // namespace lomu

#include "engine/data/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "kernels/error.h"
#include "kernels/philox.h"

namespace lomu {
namespace {

// Of a window's micro-batches about one is left part empty, so the loss is near 1/64 and the order is still random over
// stretches far longer than a step.
constexpr std::uint64_t kWindowMicroBatches = 64;

using Bin = std::vector<std::uint32_t>;

std::uint32_t checked_count(std::size_t n) {
  if (n >= std::numeric_limits<std::uint32_t>::max()) {
    throw UsageError(fmt::format("{} examples are more than one run can index ({} at most)", n,
                                 std::numeric_limits<std::uint32_t>::max() - 1),
                     "data", "split the data over several runs");
  }
  return static_cast<std::uint32_t>(n);
}

void check_lengths(std::span<const std::uint32_t> lengths, std::uint32_t capacity) {
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] == 0) throw UsageError(fmt::format("example {} has no tokens", i), "data");
    if (lengths[i] > capacity) {
      throw UsageError(fmt::format("example {} has {} tokens, a micro-batch holds {}", i, lengths[i], capacity), "data",
                       "raise the tokens of a micro-batch, or lower the longest allowed example to fit");
    }
  }
}

// Indices ordered by (random word, index): the tie-break makes the order total.
std::vector<std::uint32_t> order_by_hash(std::uint32_t n, const Philox& random, std::uint64_t stream) {
  std::vector<std::pair<std::uint64_t, std::uint32_t>> keyed(n);
  for (std::uint32_t i = 0; i < n; ++i) keyed[i] = {random.bits(stream, i), i};
  std::sort(keyed.begin(), keyed.end());
  std::vector<std::uint32_t> order(n);
  for (std::uint32_t i = 0; i < n; ++i) order[i] = keyed[i].second;
  return order;
}

// Best fit, longest first. `window` lists positions in `order`; equal lengths keep that order.
std::vector<Bin> pack_window(std::vector<std::uint32_t> window, std::span<const std::uint32_t> order,
                             std::span<const std::uint32_t> lengths, std::uint32_t capacity) {
  std::sort(window.begin(), window.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::pair(lengths[order[b]], a) < std::pair(lengths[order[a]], b);
  });
  std::vector<Bin> bins;
  std::multimap<std::uint32_t, std::size_t> room;  // free tokens -> bin
  for (const std::uint32_t position : window) {
    const std::uint32_t need = lengths[order[position]];
    std::size_t bin = bins.size();
    std::uint32_t left = capacity;
    if (const auto fit = room.lower_bound(need); fit != room.end()) {
      left = fit->first;
      bin = fit->second;
      room.erase(fit);
    } else {
      bins.emplace_back();
    }
    bins[bin].push_back(position);
    room.emplace(left - need, bin);
  }
  for (Bin& bin : bins) std::sort(bin.begin(), bin.end());
  std::sort(bins.begin(), bins.end());  // by first position: unshuffled plans follow the data
  return bins;
}

std::vector<Bin> pack(std::span<const std::uint32_t> order, std::span<const std::uint32_t> lengths,
                      std::uint32_t capacity) {
  const std::uint64_t window_tokens = kWindowMicroBatches * capacity;
  const auto tokens_of = [&](const Bin& bin) {
    return std::accumulate(bin.begin(), bin.end(), std::uint64_t{0},
                           [&](std::uint64_t sum, std::uint32_t position) { return sum + lengths[order[position]]; });
  };
  std::vector<Bin> packed;
  std::vector<std::uint32_t> window;
  std::uint64_t tokens = 0;
  for (std::uint32_t position = 0; position < order.size(); ++position) {
    window.push_back(position);
    tokens += lengths[order[position]];
    const bool last = position + 1 == order.size();
    if (tokens < window_tokens && !last) continue;

    std::vector<Bin> bins = pack_window(std::exchange(window, {}), order, lengths, capacity);
    tokens = 0;
    if (!last) {
      const auto emptiest = std::min_element(bins.begin(), bins.end(),
                                             [&](const Bin& a, const Bin& b) { return tokens_of(a) < tokens_of(b); });
      window = std::move(*emptiest);
      tokens = tokens_of(window);
      bins.erase(emptiest);
    }
    std::move(bins.begin(), bins.end(), std::back_inserter(packed));
  }
  return packed;
}

std::vector<Bin> group(std::span<const std::uint32_t> order, std::span<const std::uint32_t> lengths,
                       std::uint32_t capacity) {
  std::vector<Bin> groups;
  std::uint64_t tokens = 0;
  for (std::uint32_t position = 0; position < order.size(); ++position) {
    const std::uint32_t length = lengths[order[position]];
    if (groups.empty() || tokens + length > capacity) {
      groups.emplace_back();
      tokens = 0;
    }
    groups.back().push_back(position);
    tokens += length;
  }
  return groups;
}

}  // namespace

void EpochPlan::append(std::span<const std::uint32_t> micro_batch) {
  examples_.insert(examples_.end(), micro_batch.begin(), micro_batch.end());
  offsets_.push_back(examples_.size());
}

EpochPlan make_epoch(std::span<const std::uint32_t> lengths, const PackOptions& options) {
  const std::uint32_t n = checked_count(lengths.size());
  check_lengths(lengths, options.micro_batch_tokens);

  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  if (options.shuffle) order = shuffled(n, options.seed, options.epoch);

  const std::vector<Bin> bins = options.packing ? pack(order, lengths, options.micro_batch_tokens)
                                                : group(order, lengths, options.micro_batch_tokens);
  std::vector<std::uint32_t> bin_order(bins.size());
  std::iota(bin_order.begin(), bin_order.end(), 0u);
  if (options.shuffle) {
    const Philox random(options.seed, Purpose::kShuffleBatches);
    bin_order = order_by_hash(static_cast<std::uint32_t>(bins.size()), random, options.epoch);
  }

  EpochPlan plan;
  std::vector<std::uint32_t> examples;
  for (const std::uint32_t b : bin_order) {
    examples.clear();
    for (const std::uint32_t position : bins[b]) examples.push_back(order[position]);
    plan.append(examples);
  }
  return plan;
}

double fill_ratio(const EpochPlan& plan, std::span<const std::uint32_t> lengths, std::uint32_t micro_batch_tokens) {
  if (plan.size() == 0) return 1.0;
  double tokens = 0;
  for (std::size_t m = 0; m < plan.size(); ++m) {
    for (const std::uint32_t e : plan[m]) tokens += lengths[e];
  }
  return tokens / (static_cast<double>(plan.size()) * micro_batch_tokens);
}

std::vector<std::uint32_t> shuffled(std::uint32_t n, std::uint64_t seed, std::uint64_t epoch) {
  return order_by_hash(n, Philox(seed, Purpose::kShuffleExamples), epoch);
}

Split split_validation(std::uint32_t n, double fraction, std::uint64_t seed) {
  if (!(fraction > 0.0 && fraction < 1.0)) {
    throw UsageError(fmt::format("a validation split of {} is not a fraction between 0 and 1", fraction), "data",
                     "0.05 holds out one example in twenty");
  }
  if (n < 2) {
    throw UsageError(fmt::format("{} example(s) cannot be split into training and validation", n), "data",
                     "give a validation file, or more data");
  }
  const auto wanted = static_cast<std::uint32_t>(std::llround(fraction * n));
  const std::uint32_t held_out = std::clamp(wanted, 1u, n - 1);
  const std::vector<std::uint32_t> order = order_by_hash(n, Philox(seed, Purpose::kValidationSplit), 0);

  Split split;
  split.validation.assign(order.begin(), order.begin() + held_out);
  split.train.assign(order.begin() + held_out, order.end());
  std::sort(split.validation.begin(), split.validation.end());
  std::sort(split.train.begin(), split.train.end());
  return split;
}

}  // namespace lomu

#include "models/decoder/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/error.h"
#include "kernels/philox.h"

namespace lomu {
namespace {

std::vector<double> load_row(const Tensor& logits, std::int64_t row) {
  std::vector<double> values(static_cast<std::size_t>(logits.cols));
  for (std::int64_t j = 0; j < logits.cols; ++j) {
    values[static_cast<std::size_t>(j)] =
        logits.dtype == DType::kF64 ? logits.row<double>(row)[j] : logits.row<float>(row)[j];
  }
  return values;
}

/// Ids by falling logit, equal ones by rising id: only as many as hold `top_p` of `total`.
std::vector<std::size_t> nucleus(const std::vector<double>& weights, double total, double top_p) {
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto before = [&](std::size_t a, std::size_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
  };
  // Sorting the whole vocabulary is rarely needed: sort a few, and more only if they do not suffice.
  std::size_t sorted = 0;
  double sum = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i == sorted) {
      const std::size_t end = std::min(order.size(), std::max<std::size_t>(64, 4 * sorted));
      std::partial_sort(order.begin() + static_cast<std::ptrdiff_t>(sorted),
                        order.begin() + static_cast<std::ptrdiff_t>(end), order.end(), before);
      sorted = end;
    }
    sum += weights[order[i]];
    if (sum >= top_p * total) {
      order.resize(i + 1);
      break;
    }
  }
  return order;
}

}  // namespace

void validate(const SamplingOptions& options) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    throw UsageError(fmt::format("temperature {} is not a number from 0 on", options.temperature), "temperature");
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    throw UsageError(fmt::format("top_p {} is outside 0 ... 1 (0 itself excluded)", options.top_p), "top_p");
  }
}

std::int32_t choose_token(const Tensor& logits, std::int64_t row, const SamplingOptions& options, std::int64_t sequence,
                          std::int64_t position) {
  std::vector<double> weights = load_row(logits, row);
  for (double& w : weights) {
    if (std::isnan(w)) w = -HUGE_VAL;
  }
  const auto best = std::max_element(weights.begin(), weights.end());
  if (best == weights.end() || !std::isfinite(*best)) {
    throw NumericError("no logit is a finite number", fmt::format("sequence {}, position {}", sequence, position),
                       "the weights or the adapter hold NaN or infinity");
  }
  if (options.temperature == 0) return static_cast<std::int32_t>(best - weights.begin());

  const double largest = *best;
  for (double& w : weights) w = std::exp((w - largest) / options.temperature);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const std::vector<std::size_t> kept = nucleus(weights, total, options.top_p);
  double kept_total = 0;
  for (const std::size_t id : kept) kept_total += weights[id];

  const std::uint64_t bits = Philox(options.seed, Purpose::kSampling)
                                 .bits(static_cast<std::uint64_t>(sequence), static_cast<std::uint64_t>(position));
  const double target = static_cast<double>(bits >> 11) * 0x1p-53 * kept_total;
  double sum = 0;
  for (const std::size_t id : kept) {
    sum += weights[id];
    if (sum > target) return static_cast<std::int32_t>(id);
  }
  return static_cast<std::int32_t>(kept.back());
}

}  // namespace lomu

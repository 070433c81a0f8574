#include "engine/data/step_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/error.h"

namespace lomu {
namespace {

// Limits that no run comes near: the arithmetic below stays exact, and an absurd setting is refused instead of planned.
constexpr double kMostMicroBatches = 0x1p53;
constexpr double kMostEpochs = 1e6;

}  // namespace

StepPlan::StepPlan(std::span<const std::uint32_t> lengths, std::span<const std::uint32_t> supervised,
                   const StepOptions& options)
    : lengths_(lengths.begin(), lengths.end()), supervised_(supervised.begin(), supervised.end()), options_(options) {
  if (lengths_.empty())
    throw UsageError("there is no example to train on", "data", "see the report of skipped records");
  if (lengths_.size() != supervised_.size()) throw UsageError("lengths and supervised counts differ in number", "data");
  if (options_.micro_batches == 0) throw UsageError("a step needs at least one micro-batch", "data");
  options_.packing.epoch = 0;
  current_ = make_epoch(lengths_, options_.packing);
  first_ = {0, current_.size()};
  fill_ = fill_ratio(current_, lengths_, options_.packing.micro_batch_tokens);

  if (options_.max_steps != 0) {
    if (static_cast<double>(options_.max_steps) * options_.micro_batches > kMostMicroBatches) {
      throw UsageError(fmt::format("{} steps are too many", options_.max_steps), "data");
    }
    total_steps_ = options_.max_steps;
    return;
  }
  if (!(options_.epochs > 0 && options_.epochs <= kMostEpochs)) {
    throw UsageError(fmt::format("{} epochs cannot be planned", options_.epochs), "data",
                     "a positive number, such as 3; very long runs are better given in steps");
  }
  const auto whole = static_cast<std::uint64_t>(std::floor(options_.epochs));
  const double part = options_.epochs - static_cast<double>(whole);
  total_micro_batches_ = first_micro_batch(whole);
  if (part > 0) {
    const auto size = static_cast<double>(first_micro_batch(whole + 1) - total_micro_batches_);
    total_micro_batches_ += static_cast<std::uint64_t>(std::ceil(part * size));
  }
  total_steps_ = (total_micro_batches_ + options_.micro_batches - 1) / options_.micro_batches;
}

const EpochPlan& StepPlan::epoch_plan(std::uint64_t epoch) {
  if (epoch == current_epoch_) return current_;
  options_.packing.epoch = epoch;
  current_ = make_epoch(lengths_, options_.packing);
  current_epoch_ = epoch;
  return current_;
}

std::uint64_t StepPlan::first_micro_batch(std::uint64_t epoch) {
  while (first_.size() <= epoch) first_.push_back(first_.back() + epoch_plan(first_.size() - 1).size());
  return first_[epoch];
}

std::uint64_t StepPlan::epoch_of(std::uint64_t micro_batch) {
  while (first_.back() <= micro_batch) first_micro_batch(first_.size());
  const auto after = std::upper_bound(first_.begin(), first_.end(), micro_batch);
  return static_cast<std::uint64_t>(after - first_.begin()) - 1;
}

PlannedStep StepPlan::step(std::uint64_t s) {
  if (s >= total_steps_) throw UsageError(fmt::format("step {} of a run of {} steps", s, total_steps_), "data");
  const std::uint64_t begin = s * options_.micro_batches;
  std::uint64_t end = begin + options_.micro_batches;
  if (total_micro_batches_ != 0) end = std::min(end, total_micro_batches_);

  PlannedStep planned;
  for (std::uint64_t m = begin; m < end; ++m) {
    const std::uint64_t epoch = epoch_of(m);
    const std::uint64_t index = m - first_[epoch];
    const auto examples = epoch_plan(epoch)[index];
    for (const std::uint32_t e : examples) {
      planned.tokens += lengths_[e];
      planned.supervised += supervised_[e];
    }
    planned.micro_batches.push_back({epoch, index, {examples.begin(), examples.end()}});
  }
  return planned;
}

double StepPlan::epochs_before(std::uint64_t s) {
  const std::uint64_t m = total_micro_batches_ == 0 ? s * options_.micro_batches
                                                    : std::min(s * options_.micro_batches, total_micro_batches_);
  if (m == 0) return 0.0;
  const std::uint64_t epoch = epoch_of(m - 1);  // m itself may lie in an epoch that the run never plans
  const auto size = static_cast<double>(first_[epoch + 1] - first_[epoch]);
  return static_cast<double>(epoch) + static_cast<double>(m - first_[epoch]) / size;
}

void check_ranks(int world_size, std::uint32_t micro_batches) {
  if (world_size < 1) throw UsageError(fmt::format("a world of {} ranks", world_size), "data");
  if (static_cast<std::uint32_t>(world_size) <= micro_batches) return;
  throw UsageError(
      fmt::format("{} ranks share a step of {} micro-batch{}: {} would have nothing to do", world_size, micro_batches,
                  micro_batches == 1 ? "" : "es", static_cast<std::uint32_t>(world_size) - micro_batches),
      "data",
      fmt::format("start at most {} ranks (mpirun -np {}), or make a step of at least {} micro-batches", micro_batches,
                  micro_batches, world_size));
}

}  // namespace lomu

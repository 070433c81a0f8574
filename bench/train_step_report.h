// What bench_train_step found out, as plain numbers, and the two ways to say it: a table for people, JSON for scripts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/timed_communicator.h"
#include "bench/timed_ops.h"

namespace lomu {

/// Middle and edges of repeated measurements.
struct Spread {
  double median = 0, p10 = 0, p90 = 0;

  /// Percentiles between the two nearest measurements. `values` is not empty.
  static Spread of(std::vector<double> values);
};

/// Seconds of the parts of the measured steps, summed over them. Forward and backward are the rest.
struct StepParts {
  double total = 0;
  double add = 0;          ///< gradients of the micro-batches, along the tree
  double losses = 0;       ///< their sum over the ranks: the first to come waits for the last
  double finish = 0;       ///< what ShardedStep::finish does: reduce, step, gather, pack
  double communicate = 0;  ///< of `finish`, in the communicator
};

struct MemoryScope {
  std::string name;
  std::uint64_t predicted = 0;  ///< bytes, from shapes alone, of one rank by itself (engine/train/memory_plan.h)
  std::uint64_t planned = 0;    ///< bytes allocated before the first step
  std::uint64_t peak = 0;       ///< scratch that grows in the first step included
};

struct TrainStepReport {
  // the setting
  std::string model;
  std::string compute;
  std::string optimizer;
  int ranks = 1;
  int threads = 1;  ///< of each rank
  std::string recompute;
  std::int64_t adapter_rank = 0;
  std::int64_t tokens = 0;  ///< of a micro-batch
  std::int64_t micro_batches = 0;
  int steps = 0;

  // all ranks together
  Spread step_seconds;
  double first_loss = 0, last_loss = 0;
  double ceiling = 0;                     ///< operations a second of the matrix products of all ranks at once
  Flops flops;                            ///< of one step
  std::uint64_t peak_resident_bytes = 0;  ///< of the largest rank
  std::uint64_t peak_device_bytes = 0;    ///< of the fullest GPU, context and libraries included; 0 on CPUs

  // rank 0, over all measured steps
  double own_ceiling = 0;
  StepParts parts;
  std::vector<OperationTime> operations;
  std::vector<CommunicationTime> communication;
  std::vector<MemoryScope> memory;

  /// All scopes together.
  [[nodiscard]] MemoryScope total_memory() const;
  [[nodiscard]] double step_tokens() const { return static_cast<double>(tokens * micro_batches); }
  /// Of tokens a second: the slow edge of the step's time is the low one of the speed.
  [[nodiscard]] Spread tokens_per_second() const;
  /// If every product ran at the ceiling and nothing else took time.
  [[nodiscard]] double limit_tokens_per_second() const { return ceiling / flops.total() * step_tokens(); }
  /// Share of the measured time in the operations whose name starts with `prefix`.
  [[nodiscard]] double share_of(const std::string& prefix) const;
  /// All operations together, and those that are matrix products.
  [[nodiscard]] double operation_seconds() const;
  [[nodiscard]] double product_seconds() const;
};

std::string as_table(const TrainStepReport& report);
std::string as_json(const TrainStepReport& report);

}  // namespace lomu

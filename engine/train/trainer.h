// One training run, from a checked configuration to an adapter on disk. Everything that runs on every rank starts here;
// what only people see (progress, summary) is said by rank 0.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "comm/communicator.h"
#include "engine/config/train_config.h"

namespace lomu {

/// What a run came to.
struct TrainSummary {
  std::int64_t steps = 0;
  double first_loss = 0;  ///< of step 1, also when this run began later
  double last_loss = 0;
  std::optional<double> validation_before;  ///< before step 1, or before the step resumed at
  std::optional<double> validation_after;
  std::uint64_t tokens = 0;
  double seconds = 0;            ///< of the training loop, validation and checkpoints included
  double tokens_per_second = 0;  ///< median over the steps
  double optimizer_share = 0;    ///< of the steps' time
  std::uint64_t peak_bytes = 0;  ///< most resident memory of any rank
  std::filesystem::path result;  ///< the adapter, or the model where the run made one
};

/// Collective over `comm`. Throws AgreedError (the same on every rank) for everything that can be known on one rank,
/// and CommError when a rank is lost.
TrainSummary train(const config::TrainConfig& config, bool resume, Communicator& comm);

}  // namespace lomu

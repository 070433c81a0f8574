// Does a run's decoder fit into the memory that is there: which step of the ladder of recomputation
// (models/decoder/recompute.h) it takes, and which setting would make one fit that does not. Plans only, no allocation,
// and no result depends on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "comm/communicator.h"
#include "engine/config/train_config.h"
#include "kernels/memory.h"
#include "kernels/ops.h"
#include "models/decoder/adapter_set.h"
#include "models/decoder/decoder.h"

namespace lomu {

/// All that a decoder's plan is made from. What it refers to outlives it.
struct DecoderRequest {
  const ModelConfig& config;
  std::span<const PairInfo> pairs;
  double dropout = 0;
  const Ops& ops;
  DecoderCapacity capacity;

  [[nodiscard]] std::size_t bytes() const { return Decoder::plan(config, pairs, dropout, ops, capacity).bytes(); }
  [[nodiscard]] DecoderRequest with(Recompute level) const;
  /// Micro-batches of up to `tokens`.
  [[nodiscard]] DecoderRequest with_tokens(std::int64_t tokens) const;
};

/// Bytes of `memory` that this rank may still plan with: its share of what its storage has free, less what has been
/// allocated but not touched yet, less a margin.
std::size_t bytes_to_plan_with(const Memory& memory, const Communicator& comm);

/// The levels that `auto` tries, in this order. On a host the first is left out: writing what could be computed again
/// costs there as much as computing it.
std::span<const Recompute> levels_of_auto(const Ops& ops);

/// The first of these whose decoder fits into `bytes`; the last, if none does.
Recompute first_level_that_fits(const DecoderRequest& request, std::size_t bytes);

/// The level to run at. Collective: the same on every rank, the most thrifty that any of them needs.
Recompute choose_recompute(config::RecomputeLevel asked, const DecoderRequest& request, const Memory& memory,
                           Communicator& comm);

/// For a decoder that is larger than `bytes`: the settings with which it would not be, in words.
std::string settings_that_fit(const DecoderRequest& request, std::size_t bytes);

/// Makes the decoder in `place` at the level that choose_recompute() says and returns that level. Collective. Throws
/// MemoryError, as an AgreedError with several ranks, whose hint names the settings that fit.
Recompute make_decoder(std::optional<Decoder>& place, const AdaptedModel& model, const Ops& ops, Memory& memory,
                       DecoderCapacity capacity, config::RecomputeLevel asked, Communicator& comm);

}  // namespace lomu

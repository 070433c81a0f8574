#include "engine/train/memory_fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "kernels/error.h"

namespace lomu {
namespace {

// What is left to others. On a device: what libraries and the driver take later (code of kernels, communication) and
// what fragmentation costs. On a host: the other programs of the machine, and its file cache.
constexpr double kDeviceMargin = 0.04;
constexpr double kHostMargin = 0.1;

/// The most tokens of a micro-batch, in whole tiles of rows, that fit at the request's level; 0 if none do.
std::int64_t most_tokens_that_fit(const DecoderRequest& request, std::size_t bytes) {
  std::int64_t fits = 0;  // in tiles
  std::int64_t too_many = (request.capacity.tokens + kRowMultiple - 1) / kRowMultiple;
  while (fits + 1 < too_many) {
    const std::int64_t middle = (fits + too_many) / 2;
    (request.with_tokens(middle * kRowMultiple).bytes() <= bytes ? fits : too_many) = middle;
  }
  return fits * kRowMultiple;
}

}  // namespace

DecoderRequest DecoderRequest::with(Recompute level) const {
  DecoderRequest other = *this;
  other.capacity.recompute = level;
  return other;
}

DecoderRequest DecoderRequest::with_tokens(std::int64_t tokens) const {
  DecoderRequest other = *this;
  other.capacity.tokens = tokens;
  other.capacity.supervised = std::min(capacity.supervised, tokens);
  other.capacity.document = std::min(capacity.document, tokens);
  return other;
}

std::size_t bytes_to_plan_with(const Memory& memory, const Communicator& comm) {
  const StorageRoom room = memory.storage().room();
  const bool on_host = memory.storage().on_host();
  const double margin = (on_host ? kHostMargin : kDeviceMargin) * static_cast<double>(room.total);
  double bytes = static_cast<double>(room.free) - margin;
  if (on_host) {
    // Fresh pages count as free until they are written to, and of this ledger only the weights surely have been.
    bytes = bytes / comm.local_size() - static_cast<double>(memory.current_total() - memory.current(Scope::kWeights));
  }
  return bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

std::span<const Recompute> levels_of_auto(const Ops& ops) {
  return std::span(kRecomputeLadder).subspan(ops.storage().on_host() ? 1 : 0);
}

Recompute first_level_that_fits(const DecoderRequest& request, std::size_t bytes) {
  for (const Recompute level : levels_of_auto(request.ops)) {
    if (request.with(level).bytes() <= bytes) return level;
  }
  return kRecomputeLadder.back();
}

Recompute choose_recompute(config::RecomputeLevel asked, const DecoderRequest& request, const Memory& memory,
                           Communicator& comm) {
  switch (asked) {
    case config::RecomputeLevel::kNone: return Recompute::kNone;
    case config::RecomputeLevel::kNorms: return Recompute::kNorms;
    case config::RecomputeLevel::kMlp: return Recompute::kMlp;
    case config::RecomputeLevel::kBlock: return Recompute::kBlock;
    case config::RecomputeLevel::kAuto: break;
  }
  const Recompute mine = first_level_that_fits(request, bytes_to_plan_with(memory, comm));
  std::array level{static_cast<double>(mine)};
  comm.all_reduce_max(level, "recomputation");
  return static_cast<Recompute>(level.front());
}

std::string settings_that_fit(const DecoderRequest& request, std::size_t bytes) {
  const Recompute level = first_level_that_fits(request, bytes);
  const DecoderRequest other = request.with(level);
  const std::string needed =
      fmt::format("{}, and {} can be planned with", in_megabytes(request.bytes()), in_megabytes(bytes));
  if (other.bytes() <= bytes) {
    return fmt::format("training.recompute: {} takes {} instead of {}", name_of(level), in_megabytes(other.bytes()),
                       needed);
  }
  const std::int64_t tokens = most_tokens_that_fit(other, bytes);
  if (tokens > 0) {
    return fmt::format("training.micro_batch_tokens: {} with training.recompute: {} takes {} instead of {}", tokens,
                       name_of(level), in_megabytes(other.with_tokens(tokens).bytes()), needed);
  }
  const bool wide = request.ops.precision().activation == DType::kF32;
  return fmt::format("no micro-batch fits beside the weights ({}): use {}a smaller model, or more memory", needed,
                     wide ? "runtime.dtype: bf16, " : "a lower adapter.rank, ");
}

Recompute make_decoder(std::optional<Decoder>& place, const AdaptedModel& model, const Ops& ops, Memory& memory,
                       DecoderCapacity capacity, config::RecomputeLevel asked, Communicator& comm) {
  const AdapterSet& adapters = *model.adapters();
  DecoderRequest request{model.config(), adapters.pairs(), adapters.dropout(), ops, capacity};
  request.capacity.recompute = choose_recompute(asked, request, memory, comm);
  comm.together(
      [&] {
        const std::size_t bytes = bytes_to_plan_with(memory, comm);
        try {
          place.emplace(model, ops, memory, request.capacity);
        } catch (const MemoryError& error) {
          throw MemoryError(error.what(), error.where(), settings_that_fit(request, bytes));
        }
      },
      "making the buffers");
  return request.capacity.recompute;
}

}  // namespace lomu

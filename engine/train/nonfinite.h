// What happens when numbers of a run are no numbers any more: it ends, naming the step and the first bad tensor, and
// nothing that holds them is written. Looking for the tensor is slow and done once, at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "comm/communicator.h"
#include "engine/data/batch.h"
#include "models/decoder/adapter_set.h"
#include "models/decoder/decoder.h"

namespace lomu {

/// Ends every rank after a loss that is not finite. Collective. `losses` are those of this rank's micro-batches, which
/// begin at `first`; `batch(i)` makes micro-batch i anew. `what` is "the loss" or "the validation loss", `when` "step
/// 3". Throws NumericError with one rank, else AgreedError.
[[noreturn]] void refuse_loss(std::string_view what, std::string_view when, std::span<const double> losses,
                              std::size_t first, const std::function<Batch(std::size_t)>& batch, Decoder& decoder,
                              Communicator& comm);

/// Throws NumericError naming the first factor that holds NaN or infinity. `step`: the last one taken. The factors of
/// the last step meet no loss after it that would show them.
void check_factors(const AdapterSet& adapters, std::int64_t step);

}  // namespace lomu

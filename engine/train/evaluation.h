// The loss on held-out data: the mean over its supervised tokens, each rank computing a share of the micro-batches. The
// same bits on any number of ranks.
#pragma once

#include <string_view>

#include "comm/communicator.h"
#include "engine/train/training_data.h"
#include "models/decoder/decoder.h"

namespace lomu {

/// The batch as the decoder takes it; a view of `batch`.
PackedBatch view_of(const Batch& batch);

/// Collective. `data` must have validation data. `when`: "before step 1", for messages. Throws as refuse_loss() does
/// for a loss that is not finite.
double validation_loss(TrainingData& data, Decoder& decoder, Communicator& comm, std::string_view when);

}  // namespace lomu

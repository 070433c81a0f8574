// The adapter that a run starts with: new factors, or those of an earlier adapter.
#pragma once

#include "engine/config/train_config.h"
#include "engine/session/model_session.h"
#include "models/decoder/adapter_set.h"

namespace lomu {

/// New factors as the job's `adapter` says, or those of `adapter.from`, with the job's dropout. Throws UsageError when
/// the earlier adapter has another rank, alpha, scale, targets or layers than the job: it would train something else
/// than its configuration says. Throws what load_adapter() throws.
AdapterSet starting_adapter(const config::TrainConfig& config, const ModelSession& session);

}  // namespace lomu

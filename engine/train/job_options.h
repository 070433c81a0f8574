// From the job's configuration to the options of the rooms that do the work. One function a room; no decision is made
// here that a YAML key does not name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "engine/config/train_config.h"
#include "engine/data/dataset_builder.h"
#include "engine/data/step_plan.h"
#include "engine/data/tokenize.h"
#include "engine/optimizers/optimizer.h"
#include "engine/optimizers/schedule.h"
#include "engine/session/model_session.h"
#include "kernels/ops.h"
#include "models/decoder/adapter_set.h"
#include "models/tokenizer/chat.h"
#include "models/tokenizer/tokenizer.h"

namespace lomu {

SessionOptions session_options(const config::TrainConfig& config);
/// The new model of the job; none where it starts from files.
std::optional<UntrainedModel> untrained_model(const config::TrainConfig& config);
/// Throws UsageError for a layer the model does not have.
AdapterOptions adapter_options(const config::TrainConfig& config, const ModelConfig& model);
OptimizerOptions optimizer_options(const config::TrainConfig& config, const ModelConfig& model);
ScheduleOptions schedule_options(const config::TrainConfig& config, std::int64_t total_steps);
TokenizeOptions tokenize_options(const config::TrainConfig& config);
DataOptions data_options(const config::TrainConfig& config, const std::filesystem::path& source);
StepOptions step_options(const config::TrainConfig& config);
/// The chat layout, if the model has one or the job names one. A model without any can still train on plain text:
/// records of messages are then refused one by one.
std::optional<ChatFormat> chat_format(const config::TrainConfig& config, const Tokenizer& tokenizer);
DType stored_dtype(config::StoredType type);

/// Of the settings that change what is computed, as text: a run may be resumed with other threads, ranks, telemetry or
/// output, not with another learning rate.
std::string job_hash(const config::TrainConfig& config, const Precision& precision);

}  // namespace lomu

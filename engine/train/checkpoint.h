// A run on disk, to go on from: factors, optimizer state by pair name, the step, and the configuration. It knows no
// world size: it resumes on any number of ranks with the same bits. Data order, dropout and shuffles are functions of
// seed and step, so nothing else has to be kept.
//
//   checkpoints/step-N/state.safetensors   NAME.lora_A, NAME.lora_B and NAME.<state slot>, f32
//                      adapter/            the factors again as a PEFT folder, to use as it is
//                      checkpoint.json     format, step, fingerprints, sha256 of state.safetensors
// The folder is written under a temporary name and renamed: it is whole or not there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/optimizers/optimizer.h"
#include "models/decoder/adapter_set.h"
#include "models/files/model_config.h"

namespace lomu {

/// What a checkpoint says about itself; a run may go on from it only if these agree with its own.
struct CheckpointHead {
  std::int64_t step = 0;   ///< steps done
  std::uint64_t data = 0;  ///< fingerprint of the tokenised data
  std::string model;       ///< fingerprint of the base model
  std::string job;         ///< hash of the settings that change what is computed
  bool left_started_zero = true;
};

/// Writes step-N under `folder` and removes all but the newest two. state[i]: of pair i, its slots one after another.
/// Throws FileError.
void write_checkpoint(const std::filesystem::path& folder, const CheckpointHead& head, const AdapterSet& adapters,
                      const Optimizer& optimizer, const std::vector<std::vector<float>>& state,
                      const std::string& base_model, const ModelConfig& config);

/// The newest whole checkpoint under `folder`; nothing if there is none.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder);

/// Reads what write_checkpoint wrote into `adapters` and returns head and state. Throws FileError, FormatError
/// (checksum, missing or misshapen tensors).
struct LoadedCheckpoint {
  CheckpointHead head;
  std::vector<std::vector<float>> state;
};
LoadedCheckpoint read_checkpoint(const std::filesystem::path& checkpoint, AdapterSet& adapters,
                                 const Optimizer& optimizer);

}  // namespace lomu

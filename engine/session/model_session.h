// A model opened for computing: files, tokenizer, backend, weights in memory (one copy a host), and an adapter if one
// is named. What `generate` runs and what a trainer starts from; looking at a model without computing needs ModelFiles
// alone.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "engine/session/compute.h"
#include "kernels/memory.h"
#include "models/decoder/adapted_model.h"
#include "models/decoder/adapter_set.h"
#include "models/decoder/weights.h"
#include "models/files/model_files.h"
#include "models/files/untrained.h"
#include "models/tokenizer/tokenizer.h"

namespace lomu {

struct SessionOptions {
  std::filesystem::path model;    ///< Hugging Face folder or GGUF file
  std::filesystem::path adapter;  ///< as find_adapter_folder() takes it; empty: none
  ComputeRequest compute;
  bool tokenizer = true;  ///< load it, and check that its ids fit the model
  /// Pairs of an adapter that will be attached later: room for it is left beside the weights (WeightsLayout). Empty:
  /// room for `adapter`.
  std::function<std::vector<PairInfo>(const ModelConfig&)> future_pairs = {};
  std::optional<UntrainedModel> untrained = {};  ///< instead of `model`: a new one, with the byte tokenizer
  bool random_weights = false;                   ///< `model` is a config.json without a model: ModelFiles::random, for measurements
};

class ModelSession {
 public:
  /// Collective over `comm`: the weights are read once a host and mapped by its ranks; every failure is the same error
  /// on every rank. `training`: weights are also packed for backward. An adapter of `options` is loaded without
  /// gradients, for using it; a trainer leaves it empty, makes its own AdapterSet from config(), files() and
  /// host_memory(), and an AdaptedModel from weights(). Throws what ModelFiles, Tokenizer, read_peft_adapter and
  /// choose_compute throw, and FormatError when the tokenizer has ids that the model's vocabulary lacks.
  static ModelSession open(const SessionOptions& options, Communicator& comm, bool training = false);
  /// In this process alone.
  static ModelSession open(const SessionOptions& options);

  ModelSession(ModelSession&&) noexcept;
  ModelSession& operator=(ModelSession&&) noexcept;
  ~ModelSession();

  [[nodiscard]] const ModelFiles& files() const;
  [[nodiscard]] const ModelConfig& config() const;
  /// Throws Error when it was not asked for.
  [[nodiscard]] const Tokenizer& tokenizer() const;
  [[nodiscard]] const ComputeChoice& compute() const;
  [[nodiscard]] const Ops& ops() const;
  /// What steps adapters where ops() works; null on the host.
  [[nodiscard]] DeviceSteps* device_steps() const;
  /// The ledger of the memory that ops() works in. Stays where it is when the session moves.
  [[nodiscard]] Memory& memory() const;
  /// That of host memory: the same, unless ops() works on a device.
  [[nodiscard]] Memory& host_memory() const;
  [[nodiscard]] const ModelWeights& weights() const;
  /// Why this rank holds weights of its own though other ranks of the host have them too; empty if it does not.
  [[nodiscard]] const std::string& weights_note() const;

  /// The adapter that was named; null without one.
  [[nodiscard]] AdapterSet* adapters() const;
  /// The weights with that adapter.
  [[nodiscard]] const AdaptedModel& model() const;

 private:
  struct Parts;
  explicit ModelSession(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace lomu

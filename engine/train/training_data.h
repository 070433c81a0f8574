// The data of a run, ready to be trained on: every file tokenised (or found in the cache), the held-out part, and the
// plan of steps. Built before any training collective starts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "engine/config/train_config.h"
#include "engine/data/batch.h"
#include "engine/data/dataset.h"
#include "engine/data/step_plan.h"
#include "engine/data/tokenize.h"
#include "models/tokenizer/tokenizer.h"

namespace lomu {

class TrainingData {
 public:
  /// Collective: one rank of each host tokenises what is not in the cache, then all open it. Errors in the data are the
  /// same error on every rank. Throws what the data rooms throw, and UsageError when nothing is left to train on.
  TrainingData(const config::TrainConfig& config, const Tokenizer& tokenizer, Communicator& comm);

  [[nodiscard]] const DatasetPart& train() const { return *train_; }
  /// Null without validation data.
  [[nodiscard]] const DatasetPart* validation() const { return validation_ ? &*validation_ : nullptr; }
  [[nodiscard]] StepPlan& plan() { return *plan_; }

  /// Micro-batches of the validation data: packed, in a fixed order.
  [[nodiscard]] const EpochPlan& validation_plan() const { return validation_plan_; }

  /// What became of the lines of each file, for people.
  [[nodiscard]] const std::vector<std::string>& report() const { return report_; }
  /// Longest example of all data, in tokens.
  [[nodiscard]] std::uint32_t longest() const { return longest_; }
  /// Hash of the keys of all data sets: a checkpoint knows whether it goes on with the same data.
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }

 private:
  Dataset load(const config::TrainConfig& config, const std::filesystem::path& source, const RecordTokenizer& tokenizer,
               Communicator& comm);
  void measure(const DatasetPart& part);

  std::vector<Dataset> sources_;  ///< of training
  std::optional<Dataset> validation_source_;
  std::optional<DatasetPart> train_;
  std::optional<DatasetPart> validation_;
  std::unique_ptr<StepPlan> plan_;
  EpochPlan validation_plan_;
  std::vector<std::string> report_;
  std::uint32_t longest_ = 0;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace lomu

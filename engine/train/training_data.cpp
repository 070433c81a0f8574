#include "engine/train/training_data.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/data/packing.h"
#include "engine/data/tokenize.h"
#include "engine/train/job_options.h"
#include "kernels/error.h"

namespace lomu {
TrainingData::TrainingData(const config::TrainConfig& config, const Tokenizer& tokenizer, Communicator& comm) {
  const RecordTokenizer records = comm.together(
      [&] { return RecordTokenizer(tokenizer, chat_format(config, tokenizer), tokenize_options(config)); },
      "choosing the chat layout");
  for (const auto& source : config.data.train) sources_.push_back(load(config, source, records, comm));
  if (!config.data.validation.empty()) validation_source_ = load(config, config.data.validation, records, comm);

  comm.together(
      [&] {
        const DatasetPart all{std::span<const Dataset>(sources_)};
        if (config.data.validation_split) {
          Split split = split_validation(static_cast<std::uint32_t>(all.size()), *config.data.validation_split,
                                         static_cast<std::uint64_t>(config.training.seed));
          train_.emplace(std::span<const Dataset>(sources_), std::move(split.train));
          validation_.emplace(std::span<const Dataset>(sources_), std::move(split.validation));
        } else {
          train_.emplace(std::span<const Dataset>(sources_));
          if (validation_source_) validation_.emplace(*validation_source_);
        }
        plan_ = std::make_unique<StepPlan>(train_->lengths(), train_->supervised(), step_options(config));
        measure(*train_);
        if (validation_) {
          PackOptions packing = step_options(config).packing;
          packing.shuffle = false;
          validation_plan_ = make_epoch(validation_->lengths(), packing);
          measure(*validation_);
        }
      },
      "planning the steps");
}

Dataset TrainingData::load(const config::TrainConfig& config, const std::filesystem::path& source,
                           const RecordTokenizer& tokenizer, Communicator& comm) {
  const DataOptions options = data_options(config, source);
  const DatasetFile file =
      comm.together([&] { return locate_dataset(config.data.cache_dir, options, tokenizer); }, "reading the data");
  const bool leader = comm.local_rank() == 0;
  // Tokenising may take longer than any training collective.
  const ScopedDeadline patient(comm, std::chrono::hours(6));
  comm.together(
      [&] {
        if (leader) open_or_build(file, options, tokenizer);
      },
      "tokenising the data");
  Dataset data = comm.together([&] { return Dataset::open(file.path, file.key); }, "opening the tokenised data");
  fingerprint_ = (fingerprint_ ^ file.key) * 0x100000001b3ull;
  for (std::string& line : describe(data.report())) report_.push_back(std::move(line));
  return data;
}

void TrainingData::measure(const DatasetPart& part) {
  for (const std::uint32_t length : part.lengths()) longest_ = std::max(longest_, length);
}

}  // namespace lomu

// Prompts for samples: records of a run's own data, tokenised as in the run and cut where the answer begins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/config/train_config.h"
#include "models/tokenizer/tokenizer.h"

namespace lomu {

struct SamplePrompt {
  std::vector<std::int32_t> ids;       ///< never empty
  std::vector<std::int32_t> stop_ids;  ///< beside those of the model: what ends a turn of the chat layout
  std::string shown;                   ///< its text with special tokens, the end of it where it is long
  std::string wanted;                  ///< how the record goes on
};

struct SamplePrompts {
  std::string source;  ///< a sentence: which records these are
  std::vector<SamplePrompt> prompts;
};

/// The first `count` examples, or all where there are fewer, of the run's validation data; of what it holds out of its
/// training data; or, where it has neither, of its training data. The prompt reaches to the last answer of a
/// conversation and to the completion; of a text, or a window of one, it is the first quarter. `wanted` is cut after
/// `tokens`. Reads the run's cache of tokenised data, and makes it again where it is gone. Throws FileError for a file
/// that is not there, and what open_or_build() throws.
SamplePrompts sample_prompts(const config::TrainConfig& config, const Tokenizer& tokenizer, std::size_t count,
                             std::size_t tokens);

/// What to do about `path` of a configuration, which is not there.
std::string hint_for_lost_path(const std::filesystem::path& path);

}  // namespace lomu

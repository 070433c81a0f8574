// Greedy answers to many prompts: as many sequences at once as fit, each replaced as soon as it ends. For evaluation on
// held-out records, where nobody reads along.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/session/model_session.h"

namespace lomu {

struct BatchPrompt {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> stop_ids;
};

struct BatchOptions {
  std::int64_t sequences = 32;
  std::int64_t max_tokens = 256;  ///< of each answer
};

struct BatchAnswer {
  std::string text;  ///< special tokens left out
  std::int64_t tokens = 0;
  bool complete = false;  ///< ended by a stop token
};

/// Answers in the order of the prompts. `progress` is called after every round with the number of answers that are
/// done and the tokens made so far. Throws UsageError when a prompt is empty or leaves no room in the model's context.
std::vector<BatchAnswer> answer_batch(const ModelSession& session, std::span<const BatchPrompt> prompts,
                                      const BatchOptions& options,
                                      const std::function<void(std::size_t done, std::int64_t tokens)>& progress);

}  // namespace lomu

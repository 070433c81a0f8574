// `lomu generate`: text from a model, or a model with an adapter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "engine/commands/compute_options.h"
#include "kernels/error.h"

namespace lomu {

struct GenerateOptions {
  std::filesystem::path model;
  std::filesystem::path adapter;      ///< empty: the base model
  std::optional<std::string> prompt;  ///< one user turn
  std::filesystem::path messages;     ///< a JSON list of {role, content}, or a record with `messages`; empty: none
  std::optional<std::string> system;  ///< the system turn
  bool raw = false;                   ///< the prompt goes in as it is, without a chat template
  int max_tokens = 256;
  double temperature = 0.7;
  double top_p = 0.95;
  std::uint64_t seed = 0;
  bool greedy = false;
  ComputeOptions compute;
};

/// Without a prompt or messages, standard input is the conversation: a chat on a terminal, one prompt from a pipe.
inline bool reads_stdin(const GenerateOptions& options) {
  return !options.prompt && options.messages.empty();
}

/// Adds `generate` and its options to `program`; parsing fills `options`. Returns the command.
CLI::App& declare(CLI::App& program, GenerateOptions& options);

Exit run_generate(const GenerateOptions& options);

}  // namespace lomu
